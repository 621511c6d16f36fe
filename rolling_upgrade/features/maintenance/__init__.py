"""Turn the maintenance page on and off."""
