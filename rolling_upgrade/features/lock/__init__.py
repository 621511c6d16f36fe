"""Show, take and free the locks of hosts by hand."""
