r"""Tülu 3 SFT (Lambert et al. 2024, arXiv:2411.15124): Llama 3.1 on the Tülu 3 mixture.

    ift train --config configs/tulu3.py:8b,LLAMA31_8B --workdir runs/tulu3 --config.data.root=DATA

LLAMA31_8B is a folder with meta-llama/Llama-3.1-8B (for 70b, Llama-3.1-70B). The numbers are those
of the model cards and of the command in open-instruct's docs/tulu3.md (seed 123): 64 processes x 1
x 2 = 128 conversations a step, not packed. The 405B model had the 70B model's learning rate and
256 conversations a step.

- The loss is the *sum* over tokens (--reduce_loss sum). With a mean within each microbatch the
  tokens of short microbatches counted more, and the authors measured a difference of over 5 points
  of AlpacaEval. (The denominator "tokens" here does not have that fault either, however the batch
  is cut.) The option was removed from open-instruct in September 2025 (pull request 1024).
- The original divides its sum by the 64 processes and 2 accumulated steps. Its DeepSpeed
  configuration leaves clipping on "auto", which accelerate makes a norm of 1.0. A gradient summed
  over thousands of tokens is nearly always longer than that, so this factor cancels. (finetune.py's
  own default is no clipping.)
- tulu3_sft.yaml says "8 GPUs" and accumulates 2 steps, which is 16 a step, and names 128.
"""

from ml_collections import ConfigDict

from ift_jax.config.files import default_config
from ift_jax.config.model_shapes import set_model_shape
from ift_jax.config.recipe_arguments import size_and_checkpoint

SIZES = {"8b": (5e-6, 123), "70b": (2e-6, 456)}  # Learning rate, seed.


def get_config(argument: str = "8b") -> ConfigDict:
    """Returns the run of "SIZE" or "SIZE,CHECKPOINT"."""
    size, checkpoint = size_and_checkpoint(argument, SIZES)
    learning_rate, seed = SIZES[size]
    config = default_config("decoder")
    config.seed = seed
    config.data.modules = ("tasks.tulu",)
    config.data.mixture = "tulu3_sft"
    config.data.split = "all"  # The whole release; "train" keeps the rows of the eval loss out.
    config.format.template = "tulu"
    config.format.train_on = "all"  # Every assistant turn, with its EOS (<|end_of_text|>).
    config.data.max_length = 4096
    config.data.pack = False  # A row is a conversation: the batch is 128 conversations.
    config.data.over_length = "drop"  # The original cut the ends of long conversations off.
    config.tokenizer.path = "" if checkpoint else f"Llama-3.1-{size.upper()}/tokenizer.json"
    set_model_shape(config, f"llama-3.1-{size}")
    config.model.init_from = checkpoint
    config.model.dtype = "bfloat16"
    config.model.remat = "full"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = learning_rate
    config.optimizer.schedule = "linear"
    config.optimizer.final_ratio = 0.0
    config.optimizer.warmup_ratio = 0.03
    config.optimizer.weight_decay = 0.0
    config.optimizer.clip_norm = 1.0
    config.loss.normalization = "sum"
    config.train.batch_size = 128
    config.train.gradient_accumulation_steps = 2
    config.train.epochs = 2.0
    config.mesh.data = 1
    config.mesh.fsdp = -1
    return config
