"""Upgrade the application on its hosts without dropping a request."""
