r"""LIMA (Zhou et al. 2023, arXiv:2305.11206), the smaller model of its ablations: LLaMA 7B.

    ift train --config configs/lima_7b.py:LLAMA_7B --workdir runs/lima --config.data.root=DATA

The numbers are the paper's, section 3, not read again. Three things to know:

- The paper drops out residuals at p_i = i / (L - 1) * p_top in layer i of L, from 0 at the bottom
  to p_top = 0.3 at the top (0.2 for smaller models): here, the outputs of attention and MLP
  before they are added.
- A new token ends every turn, the user's as well, beside EOS. Its text was not published; here
  it is <|eot|>, and its embedding starts as the mean of the others.
- Checkpoints between epochs 5 and 10 were chosen by hand, on 50 prompts; perplexity does not
  follow quality. All epochs are kept. Whether users' turns were trained is not stated;
  here assistants' are.

The paper trained on 1,000 conversations (`lima_single_turn`); the release has 30 more, of several
turns (`lima`), which the paper adds in a later section.
"""

from ml_collections import ConfigDict

from configs.alpaca_7b import set_llama_7b
from ift_jax.config.files import default_config

EOT = "<|eot|>"
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role == 'assistant' %}"
    "{% generation %}{{ message.content }}" + EOT + "{% endgeneration %}"
    "{% else %}{{ message.content }}" + EOT + "{% endif %}{% endfor %}"
)


def set_recipe(config: ConfigDict) -> None:
    """What both sizes share."""
    config.data.modules = ("tasks.lima",)
    config.data.mixture = "lima_single_turn"
    config.data.split = "all"  # The 1,000; "train" keeps one in twenty out for the eval loss.
    config.tokenizer.added_tokens = (EOT,)
    config.format.template = TEMPLATE
    config.data.max_length = 2048
    config.data.pack = False  # A row is a conversation: the batch counts conversations.
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-5
    config.optimizer.schedule = "linear"
    config.optimizer.final_ratio = 0.1  # 1e-5 to 1e-6.
    config.optimizer.warmup_ratio = 0.0
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.95
    config.optimizer.weight_decay = 0.1
    config.loss.normalization = "tokens"  # Not stated ("the standard supervised loss").
    config.model.dropout = 0.2  # In the highest layer; of the 65B model 0.3.
    config.model.dropout_schedule = "linear"
    config.train.epochs = 15.0
    config.train.max_to_keep = 15


def get_config(checkpoint: str = "") -> ConfigDict:
    """The run."""
    config = default_config("decoder")
    set_llama_7b(config, checkpoint)
    set_recipe(config)
    config.train.batch_size = 64  # "64 for smaller models".
    config.train.save_every = 16  # About an epoch: 1,000 / 64.
    return config
