"""Logs of containers, Nginx and systemd units on all hosts, merged by time."""
