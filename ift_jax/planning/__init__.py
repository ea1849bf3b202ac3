"""What `ift plan` does: compiling a run for a machine that is not here."""
