"""FLAN 2021 (Wei et al., arXiv:2109.01652), to be planned: its model was never released.

| | |
|---|---|
| model | LaMDA-PT, a decoder of 137B parameters |
| data | at most 30,000 examples a dataset, mixed by min(examples, 3,000) |
| lengths | 1,024 of input, 256 of target, packed |
| batch | 8,192 tokens |
| optimizer | Adafactor, constant 3e-5 |
| steps | 30,000 (about 60 hours on a TPU v3-128) |

All numbers are the paper's, unverified against code: the training code is not public. The shape
(64 layers, d_model 8,192, d_ff 65,536, 128 heads of 128, a gated GELU, 32k tokens) is LaMDA's, as
arXiv:2201.08239 gives it; LaMDA has T5's relative positions where this decoder has RoPE.

`--config.data.mixture=flan2021_without_CLUSTER --config.data.heldout_mixture=flan2021_CLUSTER_all`
is the paper's experiment for one cluster; the default trains on all of them.
"""

from ml_collections import ConfigDict

from ift_jax.config.files import default_config
from ift_jax.config.model_shapes import set_model_shape


def get_config() -> ConfigDict:
    """Returns the run; set `tokenizer.path` and `model.*` to something that exists."""
    config = default_config("decoder")
    config.data.modules = ("tasks.flan.flan2021",)
    config.data.mixture = "flan2021"
    config.data.heldout_split = "test"
    # Four packed rows a step. The paper bounds inputs (1,024) and targets (256) separately; a row
    # bounds their sum.
    config.data.max_length = 2048
    config.train.batch_size = 0
    config.train.batch_tokens = 8192
    config.data.over_length = "truncate-prompt"
    config.data.max_dropped_fraction = 1.0  # News and stories are long; what is cut is counted.
    config.data.variants = 3  # Templates are drawn anew for each variant.
    config.format.template = "plain"
    config.tokenizer.path = "lamda/tokenizer.model"  # Never released.
    set_model_shape(config, "lamda-137b")
    config.model.dtype = "bfloat16"
    config.model.remat = "full"
    config.optimizer.name = "adafactor"
    config.optimizer.learning_rate = 3e-5
    config.optimizer.schedule = "constant"
    config.optimizer.clip_norm = 0.0
    config.train.steps = 30_000
    config.train.save_every = 2_000
    config.mesh.data = 1
    config.mesh.fsdp = -1
    return config
