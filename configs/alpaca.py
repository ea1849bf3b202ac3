r"""Alpaca (Taori et al. 2023): LLaMA on 52,002 machine-written instructions.

    ift train --config configs/alpaca.py:7b,LLAMA_7B --workdir runs/alpaca --config.data.root=DATA

LLAMA_7B is a Hugging Face folder of LLaMA 7B; tasks/alpaca.py says what DATA holds. The numbers
are those of the repository's README and train.py. The original cut everything beyond 512 tokens
off the end, and with it the end of long answers; here the prompt is cut, and counted.
"""

from ml_collections import ConfigDict

from ift_jax.config.files import default_config
from ift_jax.config.model_shapes import set_model_shape
from ift_jax.config.recipe_arguments import size_and_checkpoint

SIZES = {"7b": (2e-5, 3.0), "13b": (1e-5, 5.0)}  # Learning rate, epochs.


def get_config(argument: str = "7b") -> ConfigDict:
    """Returns the run of "SIZE" or "SIZE,CHECKPOINT"."""
    size, checkpoint = size_and_checkpoint(argument, SIZES)
    learning_rate, epochs = SIZES[size]
    config = default_config("decoder")
    set_model_shape(config, f"llama-{size}")
    config.model.init_from = checkpoint
    config.tokenizer.path = "" if checkpoint else f"llama-{size}/tokenizer.model"
    config.model.dtype = "bfloat16"
    config.model.remat = "full"
    config.data.modules = ("tasks.alpaca",)
    config.data.mixture = "alpaca"
    config.data.split = "all"  # As published; "train" keeps the rows of the eval loss out.
    config.format.template = "alpaca"  # The two prompts, with and without an input.
    config.data.max_length = 512
    config.data.pack = False  # A row is an example: the batch is 128 examples.
    config.data.over_length = "truncate-prompt"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = learning_rate
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_ratio = 0.03
    config.optimizer.weight_decay = 0.0
    # The original does not state b2, eps and clip_norm; these are its trainer's defaults.
    config.optimizer.b2 = 0.999
    config.optimizer.clip_norm = 1.0
    # The original averaged over the tokens of each of its 32 microbatches of 4, then over those.
    config.loss.normalization = "tokens"
    config.train.batch_size = 128
    config.train.gradient_accumulation_steps = 8
    config.train.epochs = epochs
    config.mesh.data = 1
    config.mesh.fsdp = -1
    return config
