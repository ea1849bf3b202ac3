"""The quickstart with an encoder-decoder of T5 1.1's shape."""

from ml_collections import ConfigDict

from configs import quickstart
from ift_jax.config.files import default_config


def get_config() -> ConfigDict:
    """The same tasks; the text-to-text form instead of a chat template."""
    config = default_config("encoder_decoder")
    quickstart.set_data(config)
    config.format.template = "plain"
    config.data.inputs_length = 128
    config.data.targets_length = 48
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup_steps = 100
    config.train.batch_size = 8
    config.train.steps = 1600
    return config
