"""Write a first configuration for an application."""
