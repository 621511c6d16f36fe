"""Completion of tasks, environments and hosts at the shell prompt."""
