"""The maintenance page: put it up, take it down."""
