"""Show what runs on each host."""
