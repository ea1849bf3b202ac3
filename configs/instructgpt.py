r"""InstructGPT's supervised stage (Ouyang et al. 2022, arXiv:2203.02155, appendix C).

    ift train --config configs/instructgpt.py:1b,CHECKPOINT --workdir runs/instructgpt \
        --config.data.root=DATA

Neither the data nor GPT-3's weights were released: DATA is your own (tasks/instructgpt.py), and
CHECKPOINT is any decoder of about this size. Without a checkpoint the shape is GPT-3's width and
depth in this project's blocks (`ift_jax/config/model_shapes.py`).

The validation loss is lowest after one epoch, yet the reward model's score and people's preference
rise for sixteen; the paper chose among the epochs by that score. All are kept. The training
figures are the paper's (not read again) and the same for both sizes; the 175B model had 5.03e-6
and 8 demonstrations a step. Weight decay and clipping are not published. The task drops prompts
of over 1,000 tokens.
"""

from ml_collections import ConfigDict

from ift_jax.config.files import default_config
from ift_jax.config.model_shapes import set_model_shape
from ift_jax.config.recipe_arguments import size_and_checkpoint

SHAPES = {"1b": "gpt-3-1.3b", "6b": "gpt-3-6.7b"}


def get_config(argument: str = "1b") -> ConfigDict:
    """Returns the run of "SIZE" or "SIZE,CHECKPOINT"."""
    size, checkpoint = size_and_checkpoint(argument, SHAPES)
    config = default_config("decoder")
    config.data.modules = ("tasks.instructgpt",)
    config.data.mixture = "instructgpt"
    config.format.template = "plain"
    config.data.max_length = 2048
    config.data.pack = False  # A row is a demonstration: the batch is 32 demonstrations.
    config.tokenizer.path = "" if checkpoint else "gpt2/tokenizer.json"
    set_model_shape(config, SHAPES[size])
    config.model.init_from = checkpoint
    config.model.dropout = 0.2  # Residual dropout.
    config.model.dtype = "bfloat16"
    config.model.remat = "full"
    config.optimizer.name = "adamw"  # Adam: no weight decay.
    config.optimizer.learning_rate = 9.65e-6
    config.optimizer.schedule = "cosine"
    config.optimizer.final_ratio = 0.1
    config.optimizer.warmup_ratio = 0.0
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.95
    config.optimizer.weight_decay = 0.0
    config.loss.normalization = "tokens"
    config.train.batch_size = 32
    config.train.epochs = 16.0
    config.train.save_every = 398  # An epoch of the paper's 12,725 prompts.
    config.train.max_to_keep = 16
    config.mesh.data = 1
    config.mesh.fsdp = -1
    return config
