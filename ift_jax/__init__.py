"""Instruction finetuning in JAX.

`train`, `inspect`, `evaluate` and `load` are the way in from Python; the command `ift` is the one
from a shell.
"""

from ift_jax.api import Conversation, TextModel, evaluate, inspect, load, train
from ift_jax.errors import UserError
from ift_jax.version import __version__

__all__ = [
    "Conversation",
    "TextModel",
    "UserError",
    "__version__",
    "evaluate",
    "inspect",
    "load",
    "train",
]
