"""What `ift plan` asks of the compiler beside one train step: a search, and generation."""
