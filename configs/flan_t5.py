r"""Flan-T5 (Chung et al., arXiv:2210.11416) on the Flan Collection (arXiv:2301.13688).

    ift train --config configs/flan_t5.py:xl,CHECKPOINT --workdir runs/flan_t5_xl \
        --config.data.root=DATA

CHECKPOINT is a folder with the weights that the size starts from:

| size | parameters | steps | starts from |
|---|---|---|---|
| small | 80M | 98,000 | google/t5-small-lm-adapt |
| base | 250M | 84,000 | google/t5-base-lm-adapt |
| large | 780M | 64,000 | google/t5-large-lm-adapt |
| xl | 3B | 38,000 | google/t5-xl-lm-adapt |
| xxl | 11B | 14,000 | google/t5-xxl-lm-adapt |

Batches of 64 packed rows, a constant 5e-4, Adafactor and dropout 0.05 are the paper's, unverified.
The names of the released checkpoints confirm the steps (1,198,000 to 1,114,000, of which 1,100,000
are pretraining and LM adaptation). For the lengths, the Collection's code says 2,048 / 512 in
`constants.py` and 2,056 / 512 in `run_example.py`; this recipe takes the first. Its batch counts
64 rows, while FLAN 2021's 8,192 counts tokens.
"""

from ml_collections import ConfigDict

from ift_jax.config.files import default_config
from ift_jax.config.model_shapes import set_model_shape
from ift_jax.config.recipe_arguments import size_and_checkpoint

STEPS = {"small": 98_000, "base": 84_000, "large": 64_000, "xl": 38_000, "xxl": 14_000}


def get_config(argument: str = "small") -> ConfigDict:
    """Returns the run of "SIZE" or "SIZE,CHECKPOINT"."""
    size, checkpoint = size_and_checkpoint(argument, STEPS)
    config = default_config("encoder_decoder")
    config.data.modules = ("tasks.flan.collection",)
    config.data.mixture = "flan_collection"
    config.data.inputs_length = 2048
    config.data.targets_length = 512
    config.data.over_length = "truncate-prompt"
    config.data.max_dropped_fraction = 1.0  # Long prompts are cut, as in the original; counted.
    config.data.variants = 4  # Templates, styles and exemplars are drawn anew.
    config.format.template = "plain"
    config.tokenizer.path = "" if checkpoint else "t5/spiece.model"
    config.tokenizer.extra_ids = 100
    set_model_shape(config, f"t5-v1_1-{size}")
    config.model.init_from = checkpoint
    config.model.dropout = 0.05
    config.model.dtype = "bfloat16"
    config.model.remat = "full" if size in ("xl", "xxl") else "dots"
    config.optimizer.name = "adafactor"
    config.optimizer.learning_rate = 5e-4
    config.optimizer.schedule = "constant"
    config.optimizer.clip_norm = 0.0
    # T5X's finetuning configuration sums the loss (loss_normalizing_factor None) and adds z-loss;
    # Flan-T5's own is not public.
    config.loss.normalization = "sum"
    config.loss.z_loss = 1e-4
    config.train.batch_size = 64
    config.train.steps = STEPS[size]
    config.train.save_every = 2_000
    config.mesh.data = 1
    config.mesh.fsdp = -1
    return config
