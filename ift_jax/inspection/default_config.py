"""The config of `ift inspect MIXTURE`: a mixture's text with a small tokenizer of its own.

    ift inspect quickstart --config.data.root=... [--config.tokenizer.path=...]

Lengths are in tokens of a tokenizer that is trained on the mixture, unless a path names one.
"""

from ml_collections import ConfigDict

from ift_jax.config.files import default_config


def get_config(mixture: str = "quickstart_train") -> ConfigDict:
    """Return the config of a run that would train on the mixture."""
    config = default_config("decoder")
    config.data.mixture = mixture
    config.data.max_length = 4096
    config.data.max_dropped_fraction = 1.0  # What is dropped is shown, and is no error.
    config.tokenizer.train_vocab_size = 4096
    config.train.epochs = 1.0
    return config
