"""The registry of tasks: one module per system; add yours here."""
