"""Start, inspect, upgrade and remove the accessories of an application."""
