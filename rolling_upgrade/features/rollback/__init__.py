"""Roll each host back to its last good release."""
