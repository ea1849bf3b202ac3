r"""Super-NaturalInstructions (arXiv:2204.07705) on a small encoder-decoder, from scratch on a CPU.

    ift train --config configs/natural_instructions_small.py --workdir runs/ni \
        --config.data.root=<folder with splits/default and tasks>

Formats, splits, caps (100 instances a task) and lengths (1,024 / 128) are Tk-Instruct's. The model
is far too small to follow instructions; it shows how the data flows and the two metrics. For the
real thing set `tokenizer.path` and the model's shape, and the recipe's constant 5e-5.
"""

from ml_collections import ConfigDict

from ift_jax.config.files import default_config


def get_config() -> ConfigDict:
    """Returns the run."""
    config = default_config("encoder_decoder")
    config.data.modules = ("tasks.natural_instructions.tasks",)
    config.data.mixture = "natural_instructions_train"
    config.data.eval_split = "validation"
    config.data.heldout_mixture = "natural_instructions_heldout"
    config.data.heldout_split = "test"
    config.data.inputs_length = 1024
    config.data.targets_length = 128
    config.data.over_length = "truncate-prompt"
    config.data.max_dropped_fraction = 1.0  # Whole tasks hold long passages; counted, and shown.
    config.format.template = "plain"
    config.tokenizer.train_vocab_size = 4096
    config.model.d_model = 128
    config.model.n_heads = 2
    config.model.head_dim = 64
    config.model.d_ff = 256
    config.model.n_encoder_layers = 2
    config.model.n_decoder_layers = 2
    config.optimizer.name = "adafactor"
    config.optimizer.learning_rate = 1e-2
    config.optimizer.schedule = "constant"
    config.optimizer.warmup_steps = 20
    config.train.epochs = 1.0
    config.train.batch_size = 8
    config.train.eval_rows = 64
    config.evaluation.examples = 20
    config.evaluation.max_new_tokens = 64
    config.evaluation.batch_size = 32
    return config
