"""Run a command or a shell inside the active containers."""
