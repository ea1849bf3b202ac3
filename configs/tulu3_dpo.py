r"""Tülu 3 DPO (Lambert et al. 2024, arXiv:2411.15124): the SFT model on its preference mixture.

    ift train --config configs/tulu3_dpo.py:8b,TULU3_SFT --workdir runs/tulu3_dpo \
        --config.data.root=DATA

TULU3_SFT is a folder with allenai/Llama-3.1-Tulu-3-8B-SFT (for 70b, of that size), or the workdir
of `configs/tulu3.py`. The numbers are those of the commands in open-instruct's docs/tulu3.md:
`dpo_norm` (the mean of an answer's log-probabilities, here `sigmoid_norm`) with a beta of 5, one
epoch, 8 processes x 1 x 16 = 128 pairs a step (70B: 64 x 1 x 2), linear to 0, 10% warm-up.

- The original cuts each side to 2,048 tokens. Here a row holds both, and a pair of more than 4,096
  is dropped and counted.
- The commands leave clipping to DeepSpeed's "auto", which accelerate makes a norm of 1.0.
"""

from ml_collections import ConfigDict

from ift_jax.config.files import default_config
from ift_jax.config.model_shapes import set_model_shape
from ift_jax.config.recipe_arguments import size_and_checkpoint

LEARNING_RATES = {"8b": 5e-7, "70b": 2e-7}


def get_config(argument: str = "8b") -> ConfigDict:
    """Returns the run of "SIZE" or "SIZE,CHECKPOINT"."""
    size, checkpoint = size_and_checkpoint(argument, LEARNING_RATES)
    config = default_config("decoder")
    config.data.modules = ("tasks.tulu",)
    config.data.mixture = f"tulu3_preferences_{size}"
    config.data.split = "all"  # The whole release; "train" keeps the pairs of the eval loss out.
    config.format.template = "tulu"
    config.data.max_length = 4096
    config.data.pack = False  # A row is a pair: the batch is 128 pairs.
    config.data.over_length = "drop"
    config.tokenizer.path = "" if checkpoint else f"Llama-3.1-{size.upper()}/tokenizer.json"
    set_model_shape(config, f"llama-3.1-{size}")
    config.model.init_from = checkpoint
    config.model.dtype = "bfloat16"
    config.model.remat = "full"
    config.preference.loss = "sigmoid_norm"
    config.preference.beta = 5.0
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = LEARNING_RATES[size]
    config.optimizer.schedule = "linear"
    config.optimizer.final_ratio = 0.0
    config.optimizer.warmup_ratio = 0.1
    config.optimizer.weight_decay = 0.0
    config.optimizer.clip_norm = 1.0
    config.train.batch_size = 128
    config.train.gradient_accumulation_steps = 16
    config.train.epochs = 1.0
    config.mesh.data = 1
    config.mesh.fsdp = -1
    return config
