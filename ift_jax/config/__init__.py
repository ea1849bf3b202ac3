"""The config of a run: schema, checks and files."""
