"""Logs of containers, Nginx and units of many hosts, merged by time."""
