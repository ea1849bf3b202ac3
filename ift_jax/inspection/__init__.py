"""What `ift inspect` and dry runs show."""
