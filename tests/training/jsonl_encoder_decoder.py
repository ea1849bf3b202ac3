"""The config for JSON lines, with an encoder-decoder."""

from configs import jsonl
from ift_jax.config.files import default_config


def get_config(path):
    config = default_config("encoder_decoder")
    decoder = jsonl.get_config(path)
    for section in ("data", "tokenizer", "train", "evaluation"):
        config[section] = decoder[section]
    return config
