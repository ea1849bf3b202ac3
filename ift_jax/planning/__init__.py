"""What `ift plan` does: compiling for a machine that is not here."""
