"""A run's state on disk, and loading a model for use."""
