"""Put a backup back on each host."""
