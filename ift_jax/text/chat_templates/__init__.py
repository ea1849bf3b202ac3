"""Chat templates: Jinja in a sandbox."""
