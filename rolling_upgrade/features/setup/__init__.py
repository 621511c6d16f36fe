"""Prepare bare hosts, and remove an application from them."""
