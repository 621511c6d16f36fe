"""Commands on the workstation before and after a deploy or a rollback."""
