"""Show the health and the events of every host on one live screen."""
