"""T0 3B (Sanh et al. 2021, arXiv:2110.08207): as configs/t0_11b.py, from T5 1.1 LM-adapted XL.

The released T0_3B's card repeats the 11B run's settings (from the card, unverified).
"""

from ml_collections import ConfigDict

from configs import t0_11b


def get_config() -> ConfigDict:
    """The run."""
    config = t0_11b.get_config()
    set_xl(config)  # config.model.init_from: google/t5-xl-lm-adapt.
    return config


def set_xl(config: ConfigDict) -> None:
    """T5 1.1 XL's shape."""
    t0_11b.set_xxl(config)
    config.model.d_model = 2048
    config.model.d_ff = 5120
    config.model.n_heads = 32
