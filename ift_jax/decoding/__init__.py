"""Text out of a model: the key-value cache, sampling, and generation in batches."""

from ift_jax.decoding.generate import generate

__all__ = ["generate"]
