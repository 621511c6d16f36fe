"""Check the configuration, and show every effective value."""
