"""Pages to look at, one file each, that need no network."""
