r"""LIMA (Zhou et al. 2023, arXiv:2305.11206): LLaMA 65B on a thousand conversations.

    ift train --config configs/lima_65b.py:LLAMA_65B --workdir runs/lima --config.data.root=DATA

configs/lima_7b.py says where the numbers are from. Residual dropout rises to 0.3 here, to 0.2 in
the smaller models.
"""

from ml_collections import ConfigDict

from configs.lima_7b import set_recipe
from ift_jax.config.files import default_config


def get_config(checkpoint: str = "") -> ConfigDict:
    """The run."""
    config = default_config("decoder")
    model = config.model
    model.init_from = checkpoint  # A folder with the weights of LLaMA 65B.
    config.tokenizer.path = "" if checkpoint else "llama-65b/tokenizer.model"
    model.vocab_size, model.max_length = 32_000, 2048
    model.d_model, model.n_layers, model.d_ff = 8192, 80, 22_016
    model.n_heads, model.n_kv_heads, model.head_dim = 64, 64, 128
    model.norm_eps, model.tied_embedding = 1e-5, False
    model.dtype, model.remat = "bfloat16", "full"
    config.mesh.data, config.mesh.fsdp = 1, -1
    set_recipe(config)
    model.dropout = 0.3
    config.train.batch_size = 32
    config.train.save_every = 31  # About an epoch: 1,000 / 32.
    return config
