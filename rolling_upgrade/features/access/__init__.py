"""Control who can log in as the deploy user: list, grant and revoke keys, and sync the hosts."""
