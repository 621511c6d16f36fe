"""Remote shell text: the only place where it exists. Pure functions from values to text, and parsers of answers."""
