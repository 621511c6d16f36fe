"""What to do, as data. Pure functions from an observed host and a wanted release to a plan of steps."""
