"""Rows of data as people write them, read as records; nothing that a row says is ignored."""
