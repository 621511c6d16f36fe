"""Delete expired images, backups, containers and journals."""
