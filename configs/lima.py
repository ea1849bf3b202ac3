r"""LIMA (Zhou et al. 2023, arXiv:2305.11206): LLaMA 65B, or 7B as in the paper's ablations.

    ift train --config configs/lima.py:7b,LLAMA_7B --workdir runs/lima --config.data.root=DATA

The numbers are those of the paper's section 3, which was not read again. Three things to know:

- The paper applies dropout to residuals at p_i = i / (L - 1) * p_top in layer i of L, from 0 at the
  bottom to p_top = 0.3 at the top (0.2 for smaller models): here, to the outputs of attention and
  MLP before they are added.
- A new token ends every turn, the user's as well, beside EOS. Its text was not published; here
  it is <|eot|>, and its embedding starts as the mean of the others.
- Checkpoints between epochs 5 and 10 were chosen by hand, on 50 prompts, because perplexity does
  not follow quality. All epochs are kept. The paper does not say whether the user's turns were
  trained; here only the assistant's are.

The paper trained on 1,000 conversations (`lima_single_turn`); the release has 30 more, of several
turns (`lima`), which the paper adds in a later section.
"""

from ml_collections import ConfigDict

from ift_jax.config.files import default_config
from ift_jax.config.model_shapes import set_model_shape
from ift_jax.config.recipe_arguments import size_and_checkpoint

EOT = "<|eot|>"
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role == 'assistant' %}"
    "{% generation %}{{ message.content }}" + EOT + "{% endgeneration %}"
    "{% else %}{{ message.content }}" + EOT + "{% endif %}{% endfor %}"
)
# Conversations a step ("64 for smaller models"), steps of about an epoch of the 1,000, and the
# dropout of the highest layer.
SIZES = {"7b": (64, 16, 0.2), "65b": (32, 31, 0.3)}


def get_config(argument: str = "7b") -> ConfigDict:
    """Returns the run of "SIZE" or "SIZE,CHECKPOINT"."""
    size, checkpoint = size_and_checkpoint(argument, SIZES)
    batch_size, steps_an_epoch, dropout = SIZES[size]
    config = default_config("decoder")
    config.data.modules = ("tasks.lima",)
    config.data.mixture = "lima_single_turn"
    config.data.split = "all"  # The 1,000; "train" keeps one in twenty out for the eval loss.
    config.tokenizer.path = "" if checkpoint else f"llama-{size}/tokenizer.model"
    config.tokenizer.added_tokens = (EOT,)
    config.format.template = TEMPLATE
    config.data.max_length = 2048
    config.data.pack = False  # A row is a conversation: the batch counts conversations.
    set_model_shape(config, f"llama-{size}")
    config.model.init_from = checkpoint
    config.model.dropout = dropout
    config.model.dropout_schedule = "linear"
    config.model.dtype = "bfloat16"
    config.model.remat = "full"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-5
    config.optimizer.schedule = "linear"
    config.optimizer.final_ratio = 0.1  # 1e-5 to 1e-6.
    config.optimizer.warmup_ratio = 0.0
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.95
    config.optimizer.weight_decay = 0.1
    config.loss.normalization = "tokens"  # Not stated ("the standard supervised loss").
    config.train.batch_size = batch_size
    config.train.epochs = 15.0
    config.train.save_every = steps_an_epoch
    config.train.max_to_keep = 15
    config.mesh.data = 1
    config.mesh.fsdp = -1
    return config
