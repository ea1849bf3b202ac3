"""Paths, atomic files and locks."""
