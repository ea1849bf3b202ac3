"""Chat templates: Jinja in a sandbox that turns a conversation into text with marked answers."""
