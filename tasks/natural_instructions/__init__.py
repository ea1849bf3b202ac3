"""Both releases of Natural Instructions."""
