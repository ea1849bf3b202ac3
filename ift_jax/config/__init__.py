"""The config of a run: its fields, their checks, and files."""
