"""The quickstart: a small model learns some forty instruction tasks on a CPU in three minutes.

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
    config.tokenizer.train_vocab_size = 768
    config.train.log_every = 100
    config.train.eval_rows = 128
    config.train.eval_metrics_examples = 4
    config.evaluation.examples = 40
    config.evaluation.max_new_tokens = 12
    config.evaluation.batch_size = 256
    if architecture == "decoder":
        set_decoder(config)
    else:
        set_encoder_decoder(config)
    return config


def set_decoder(config: ConfigDict) -> None:
    """Sets what the decoder needs."""
    config.data.max_length = 128
    # This size copied a word in the fewest seconds among those that were tried.
    config.model.n_layers = 3
    config.model.d_model = 128
    config.model.n_heads = 4
    config.model.n_kv_heads = 4
    config.model.head_dim = 64  # A head that copies a word must tell all words apart.
    config.model.d_ff = 256
    # Normalized queries and keys allow this learning rate, and a small model must learn to copy
    # within a few hundred steps.
    config.model.qk_norm = "head"
    config.optimizer.learning_rate = 5e-3
    config.optimizer.warmup_steps = 60
    config.optimizer.b2 = 0.98
    config.train.batch_size = 8
    # A run of 1,000 steps ends before all kinds of words are learned, and rounding decides which
    # are: seed 0 then answered 0.45 to 0.72 of the held-out tasks.
    config.train.steps = 2000
    config.train.eval_metrics_every = 1000  # Before, halfway, and after.


def set_encoder_decoder(config: ConfigDict) -> None:
    """Sets what the encoder-decoder needs: text-to-text instead of a chat template."""
    config.format.template = "plain"
    config.data.inputs_length = 128
    config.data.targets_length = 48
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup_steps = 100
    config.train.batch_size = 8
    config.train.steps = 1600
    config.train.eval_metrics_every = 800
