"""The quickstart: a small model learns some twenty instruction tasks on a CPU in minutes.

    ift train --config configs/quickstart.py --workdir runs/quickstart
    ift train --config configs/quickstart.py:encoder_decoder --workdir runs/quickstart_t5

Everything is made here: the text of the tasks (`tasks/quickstart/`), the tokenizer (trained on it),
and the model (from scratch; the encoder-decoder has the form of T5 1.1).
"""

from ml_collections import ConfigDict

from ift_jax.config.files import default_config


def get_config(architecture: str = "decoder") -> ConfigDict:
    """Returns the run of an architecture, "decoder" or "encoder_decoder"."""
    config = default_config(architecture)
    config.data.modules = ("tasks.quickstart.tasks",)
    config.data.mixture = "quickstart_train"
    config.data.heldout_mixture = "quickstart_heldout"
    config.data.heldout_split = "test"
    config.tokenizer.train_vocab_size = 2048
    config.train.log_every = 50
    config.train.eval_rows = 128
    config.train.eval_metrics_every = 300  # Before, halfway, and after.
    config.train.eval_metrics_examples = 8
    config.evaluation.examples = 40
    config.evaluation.max_new_tokens = 24
    config.evaluation.batch_size = 256
    if architecture == "decoder":
        set_decoder(config)
    else:
        set_encoder_decoder(config)
    return config


def set_decoder(config: ConfigDict) -> None:
    """Sets what the decoder needs."""
    config.data.max_length = 128
    # Normalized queries and keys allow this learning rate, and a small model must learn to copy
    # within a few hundred steps: 0.95 of the answers are right after 700 of them, 0.66 without.
    config.model.qk_norm = "head"
    config.model.n_kv_heads = 6
    config.optimizer.learning_rate = 5e-3
    config.optimizer.warmup_steps = 60
    config.optimizer.b2 = 0.98
    config.train.batch_size = 16
    config.train.steps = 600


def set_encoder_decoder(config: ConfigDict) -> None:
    """Sets what the encoder-decoder needs: text-to-text instead of a chat template."""
    config.format.template = "plain"
    config.data.inputs_length = 128
    config.data.targets_length = 48
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup_steps = 100
    config.train.batch_size = 8
    config.train.steps = 1600
