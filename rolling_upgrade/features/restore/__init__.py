"""Restore a backup on each host."""
