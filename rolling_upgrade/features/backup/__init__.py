"""Backups of the database, the configuration and uploaded files: take, list, verify, fetch."""
