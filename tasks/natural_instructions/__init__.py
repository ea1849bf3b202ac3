"""Natural Instructions, releases 1 and 2."""
