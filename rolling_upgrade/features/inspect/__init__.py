"""One page about each host for troubleshooting."""
