"""Show the releases in each host's history, and verify that no line was changed."""
