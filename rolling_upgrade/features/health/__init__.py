"""Check every host once, or repeatedly."""
