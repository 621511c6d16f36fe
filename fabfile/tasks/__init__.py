"""Task signatures and their help. Each parses, calls one workflow and turns its end into an exit code; nothing more."""
