"""The JSON-lines config with an encoder-decoder."""

from configs import jsonl
from ift_jax.config.files import default_config


def get_config(path):
    config, other = default_config("encoder_decoder"), jsonl.get_config(path)
    for name in ("data", "tokenizer", "train", "evaluation"):
        config[name] = other[name]
    return config
