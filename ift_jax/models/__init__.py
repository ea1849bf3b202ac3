"""The transformers: one decoder-only, one encoder-decoder, made of the same layers."""

from ift_jax.models.model import Model, build_model

__all__ = ["Model", "build_model"]
