"""Hosts over SSH: connections, host keys, terminals, and an image server. Only this package uses Fabric."""
