r"""InstructGPT's supervised stage, 6B (Ouyang et al. 2022, arXiv:2203.02155, appendix C).

    ift train --config configs/instructgpt_6b.py:CHECKPOINT --workdir runs/instructgpt \
        --config.data.root=DATA

configs/instructgpt_1b.py says where the numbers are from; they are the same for both sizes. (The
175B model had 5.03e-6 and 8 demonstrations a step.)
"""

from ml_collections import ConfigDict

from configs.instructgpt_1b import set_recipe
from ift_jax.config.files import default_config


def get_config(checkpoint: str = "") -> ConfigDict:
    """The run."""
    config = default_config("decoder")
    set_recipe(config)
    model = config.model
    model.init_from = checkpoint  # A folder with any decoder of about this size.
    config.tokenizer.path = "" if checkpoint else "gpt2/tokenizer.json"
    model.d_model, model.n_layers, model.d_ff = 4096, 32, 11_008
    model.n_heads, model.n_kv_heads, model.head_dim = 32, 32, 128
    return config
