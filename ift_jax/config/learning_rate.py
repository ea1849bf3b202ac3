"""The learning rate of a run whose config sets none."""

import dataclasses

from ift_jax.config.schema import Config
from ift_jax.errors import UserError

FRESH_WEIGHTS = 1e-3  # It suits the small models that are trained from scratch here.
# What finetuning with AdamW usually takes: Alpaca, Vicuna and the trainers that followed them for
# all parameters, PEFT's examples for adapters, which take about ten times as much.
ADAMW = 2e-5
ADAMW_LORA = 2e-4
# On pairs: the default of TRL, and Olmo 3's and SmolLM3's (Tülu 3: 5e-7 for 8B).
PREFERENCE = 1e-6
PREFERENCE_LORA = 1e-5
ADAFACTOR = 1e-3  # T5's, which the scale of each parameter multiplies (arXiv:1910.10683, 3.1.2).


def with_learning_rate(config: Config) -> Config:
    """Returns the config with a learning rate, if it has none.

    Raises:
        UserError: The optimizer has no rate that is usual for finetuning.
    """
    optimizer = config.optimizer
    if optimizer.learning_rate:
        return config
    if not config.model.init_from:
        rate = FRESH_WEIGHTS
    elif optimizer.name == "adamw":
        if config.preference.trains_pairs:
            rate = PREFERENCE_LORA if config.lora.rank else PREFERENCE
        else:
            rate = ADAMW_LORA if config.lora.rank else ADAMW
    elif optimizer.name == "adafactor":
        rate = ADAFACTOR
    else:
        raise UserError(
            f"config.optimizer.learning_rate: expected a positive number, because no rate is usual "
            f"for finetuning with {optimizer.name!r}; got 0"
        )
    optimizer = dataclasses.replace(optimizer, learning_rate=rate)
    return dataclasses.replace(config, optimizer=optimizer)
