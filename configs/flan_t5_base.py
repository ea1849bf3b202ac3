"""Flan-T5 base (arXiv:2210.11416): 84,000 steps from google/t5-base-lm-adapt.

configs/flan_t5_small.py has the table of all sizes, and says where its numbers are from.
"""

from ml_collections import ConfigDict

from configs.flan_t5_small import recipe


def get_config(checkpoint: str = "") -> ConfigDict:
    """The run; `checkpoint` is a folder with the weights."""
    return recipe("base", checkpoint)
