"""Log the hosts in at a registry, and out again."""
