r"""Tulu 2 70B (Ivison et al. 2023, arXiv:2311.10702): Llama 2 70B on the Tulu 2 mixture.

    ift train --config configs/tulu2_70b.py:LLAMA2_70B --workdir runs/tulu2 --config.data.root=DATA

configs/tulu2_7b.py says where the numbers are from; the learning rate is half of the 7B model's.
"""

from ml_collections import ConfigDict

from configs.tulu2_7b import set_recipe
from ift_jax.config.files import default_config


def get_config(checkpoint: str = "") -> ConfigDict:
    """The run."""
    config = default_config("decoder")
    set_recipe(config)
    model = config.model
    model.init_from = checkpoint  # A folder with meta-llama/Llama-2-70b-hf.
    config.tokenizer.path = "" if checkpoint else "Llama-2-70b-hf/tokenizer.model"
    model.vocab_size, model.max_length, model.norm_eps = 32_000, 8192, 1e-5
    model.d_model, model.n_layers, model.d_ff = 8192, 80, 28_672
    model.n_heads, model.n_kv_heads, model.head_dim = 64, 8, 128
    config.optimizer.learning_rate = 1e-5
    return config
