"""Show, acquire and release the locks of hosts."""
