"""A list of runs from one base: what they are, running them, and what came out."""
