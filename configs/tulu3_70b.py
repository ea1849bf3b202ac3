r"""Tulu 3 70B SFT (Lambert et al. 2024, arXiv:2411.15124): Llama 3.1 70B on the Tulu 3 mixture.

    ift train --config configs/tulu3_70b.py:LLAMA31_70B --workdir runs/tulu3 --config.data.root=DATA

configs/tulu3_8b.py says where the numbers are from. The 405B model had this learning rate too,
and 256 conversations a step.
"""

from ml_collections import ConfigDict

from configs.tulu3_8b import set_recipe
from ift_jax.config.files import default_config


def get_config(checkpoint: str = "") -> ConfigDict:
    """The run."""
    config = default_config("decoder")
    set_recipe(config)
    model = config.model
    model.init_from = checkpoint  # A folder with meta-llama/Llama-3.1-70B.
    config.tokenizer.path = "" if checkpoint else "Llama-3.1-70B/tokenizer.json"
    model.d_model, model.n_layers, model.d_ff = 8192, 80, 28_672
    model.n_heads, model.n_kv_heads, model.head_dim = 64, 8, 128
    config.optimizer.learning_rate = 2e-6
    config.seed = 456
    return config
