"""Who may log in as the deploy user: list, grant, revoke, and bring every host in line."""
