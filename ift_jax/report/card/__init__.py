"""The model card of an export: a README.md with the front matter of the Hugging Face hub."""

from ift_jax.report.card.model_card import model_card
from ift_jax.report.card.subject import Subject

__all__ = ["Subject", "model_card"]
