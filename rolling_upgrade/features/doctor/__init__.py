"""Diagnose this machine and every host before a deploy."""
