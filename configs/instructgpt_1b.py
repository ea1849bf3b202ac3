r"""InstructGPT's supervised stage, 1.3B (Ouyang et al. 2022, arXiv:2203.02155, appendix C).

    ift train --config configs/instructgpt_1b.py:CHECKPOINT --workdir runs/instructgpt \
        --config.data.root=DATA

Neither the data nor GPT-3's weights were released: DATA is your own (tasks/instructgpt.py), and
CHECKPOINT any decoder of about this size. The shape is GPT-3's width and depth in this
project's blocks: RoPE, RMS norms and a gated feed-forward layer, whose width keeps the number of
parameters (three matrices of 5,504 for two of 8,192). GPT-3's table gives this size 24 heads of
128, which is not its width of 2,048; here it is 16.

The validation loss is lowest after one epoch, yet the reward model's score, and people's
preference, rise for sixteen; the paper chose among the epochs by that score. All are kept.
The training figures are the paper's [not read again]; weight decay and clipping are not
published. Prompts over 1,000 tokens are left out by the task, see there.
"""

from ml_collections import ConfigDict

from ift_jax.config.files import default_config


def set_recipe(config: ConfigDict) -> None:
    """What both sizes share."""
    config.data.modules = ("tasks.instructgpt",)
    config.data.mixture = "instructgpt"
    config.format.template = "plain"
    config.data.max_length = 2048
    config.data.pack = False  # A row is a demonstration: the batch is 32 demonstrations.
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
    model = config.model
    model.vocab_size, model.max_length = 50_304, 2048  # GPT-2's 50,257, rounded up.
    model.dropout = 0.2  # Residual dropout.
    model.dtype, model.remat = "bfloat16", "full"
    config.mesh.data, config.mesh.fsdp = 1, -1


def get_config(checkpoint: str = "") -> ConfigDict:
    """The run."""
    config = default_config("decoder")
    set_recipe(config)
    model = config.model
    model.init_from = checkpoint  # A folder with any decoder of about this size.
    config.tokenizer.path = "" if checkpoint else "gpt2/tokenizer.json"
    model.d_model, model.n_layers, model.d_ff = 2048, 24, 5504
    model.n_heads, model.n_kv_heads, model.head_dim = 16, 16, 128
    return config
