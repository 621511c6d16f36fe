"""Check the health of every host, once or repeatedly."""
