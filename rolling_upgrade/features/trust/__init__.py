"""Record the host keys of an environment."""
