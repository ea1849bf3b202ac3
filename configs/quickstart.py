"""The quickstart: a small decoder learns some twenty instruction tasks on a CPU in minutes.

Everything is made here: the tasks' text (`tasks/quickstart/`), the tokenizer (trained on it),
and the model (from scratch).
"""

from ml_collections import ConfigDict

from ift_jax.config.files import default_config


def set_data(config: ConfigDict) -> None:
    """What both quickstarts share: tasks, tokenizer and evaluation."""
    config.data.modules = ("tasks.quickstart.tasks",)
    config.data.mixture = "quickstart_train"
    config.data.heldout_mixture = "quickstart_heldout"
    config.data.heldout_split = "test"
    config.tokenizer.train_vocab_size = 2048
    config.train.log_every = 50
    config.train.eval_rows = 128
    config.evaluation.examples = 40
    config.evaluation.max_new_tokens = 24
    config.evaluation.batch_size = 256


def get_config() -> ConfigDict:
    """The decoder."""
    config = default_config("decoder")
    set_data(config)
    config.data.max_length = 128
    # Normalised queries and keys bear this learning rate, and a small model must learn to copy
    # within a few hundred steps: 0.95 of the answers right after 700 of them, 0.66 without.
    config.model.qk_norm = "head"
    config.model.n_kv_heads = 6
    config.optimizer.learning_rate = 5e-3
    config.optimizer.warmup_steps = 60
    config.optimizer.b2 = 0.98
    config.train.batch_size = 16
    config.train.steps = 600
    return config
