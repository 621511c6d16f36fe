"""Show a troubleshooting page for each host."""
