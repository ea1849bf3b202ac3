"""Training and using models from Python: what the commands do, as functions.

    import ift_jax

    ift_jax.train(model="/models/SmolLM2-135M-Instruct", data="chats.jsonl", workdir="runs/a")
    model = ift_jax.load("runs/a")
    model.generate("Name three colors.")
    model.export("my_model")

JAX is imported when a function is called. A mistake raises `ift_jax.UserError` with the line that
the command would print.
"""

from ift_jax.api.runs import evaluate, inspect, train
from ift_jax.api.text_model import Conversation, TextModel, load

__all__ = ["Conversation", "TextModel", "evaluate", "inspect", "load", "train"]
