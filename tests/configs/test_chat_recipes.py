"""The recipes of the conversation sets expand to the published numbers."""

from typing import NamedTuple

import pytest

from ift_jax.config import files as config_file
from ift_jax.config.schema import Config
from ift_jax.errors import UserError


class Numbers(NamedTuple):
    """The published hyperparameters of a recipe. `batch` counts conversations."""

    batch: int
    length: int
    epochs: int
    rate: float
    schedule: str
    final_ratio: float
    warmup_ratio: float
    betas: tuple[float, float]
    decay: float
    loss: str


PUBLISHED = {
    "alpaca:7b": Numbers(128, 512, 3, 2e-5, "cosine", 0.0, 0.03, (0.9, 0.999), 0.0, "tokens"),
    "lima:7b": Numbers(64, 2048, 15, 1e-5, "linear", 0.1, 0.0, (0.9, 0.95), 0.1, "tokens"),
    "lima:65b": Numbers(32, 2048, 15, 1e-5, "linear", 0.1, 0.0, (0.9, 0.95), 0.1, "tokens"),
    "tulu2:7b": Numbers(128, 8192, 2, 2e-5, "linear", 0.0, 0.03, (0.9, 0.95), 0.0, "tokens"),
    "tulu2:70b": Numbers(128, 8192, 2, 1e-5, "linear", 0.0, 0.03, (0.9, 0.95), 0.0, "tokens"),
    "tulu3:8b": Numbers(128, 4096, 2, 5e-6, "linear", 0.0, 0.03, (0.9, 0.999), 0.0, "sum"),
    "tulu3:70b": Numbers(128, 4096, 2, 2e-6, "linear", 0.0, 0.03, (0.9, 0.999), 0.0, "sum"),
    "tulu3_dpo:8b": Numbers(128, 4096, 1, 5e-7, "linear", 0.0, 0.1, (0.9, 0.999), 0.0, "tokens"),
    "tulu3_dpo:70b": Numbers(128, 4096, 1, 2e-7, "linear", 0.0, 0.1, (0.9, 0.999), 0.0, "tokens"),
    "instructgpt:1b": Numbers(
        32, 2048, 16, 9.65e-6, "cosine", 0.1, 0.0, (0.9, 0.95), 0.0, "tokens"
    ),
    "instructgpt:6b": Numbers(
        32, 2048, 16, 9.65e-6, "cosine", 0.1, 0.0, (0.9, 0.95), 0.0, "tokens"
    ),
}
# Billions of parameters, without those of the norms.
SIZES = {
    "alpaca:7b": 6.74,
    "lima:7b": 6.74,
    "lima:65b": 65.28,
    "tulu2:7b": 6.74,
    "tulu2:70b": 68.98,
    "tulu3:8b": 8.03,
    "tulu3:70b": 70.55,
    "tulu3_dpo:8b": 8.03,
    "tulu3_dpo:70b": 70.55,
    "instructgpt:1b": 1.32,
    "instructgpt:6b": 6.68,
}
TEMPLATES = {
    "alpaca": "alpaca",
    "tulu2": "tulu",
    "tulu3": "tulu",
    "tulu3_dpo": "tulu",
    "instructgpt": "plain",
}


def load(name: str, checkpoint: str = "") -> Config:
    recipe, _, size = name.partition(":")
    return config_file.load(f"configs/{recipe}.py:{size},{checkpoint}")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers(name):
    config = load(name)
    optimizer = config.optimizer
    assert PUBLISHED[name] == Numbers(
        config.train.batch_size,
        config.data.max_length,
        config.train.epochs,
        optimizer.learning_rate,
        optimizer.schedule,
        optimizer.final_ratio,
        optimizer.warmup_ratio,
        (optimizer.b1, optimizer.b2),
        optimizer.weight_decay,
        config.loss.normalization,
    )
    assert (optimizer.name, optimizer.clip_norm, optimizer.warmup_steps) == ("adamw", 1.0, 0)
    assert not config.data.pack  # Without packing, a row of the batch is one conversation.
    assert config.train.steps == 0 and config.format.train_on == "all"
    system = name.partition(":")[0]
    if system == "lima":
        assert config.tokenizer.added_tokens == ("<|eot|>",)
        assert config.format.template.count("<|eot|>") == 2  # After the turns of both sides.
    else:
        assert config.format.template == TEMPLATES[system]
    dropouts = {"instructgpt:1b": 0.2, "instructgpt:6b": 0.2, "lima:7b": 0.2, "lima:65b": 0.3}
    assert config.model.dropout == dropouts.get(name, 0.0)
    assert config.model.dropout_schedule == ("linear" if system == "lima" else "constant")
    module = "tasks.tulu" if system.startswith("tulu") else f"tasks.{system}"
    assert config.data.modules == (module,)


@pytest.mark.parametrize("name", SIZES)
def test_shapes_have_the_published_sizes(name):
    model = load(name).model
    attention = model.d_model * model.head_dim * (2 * model.n_heads + 2 * model.n_kv_heads)
    feed_forward = 3 * model.d_model * model.d_ff
    layers = model.n_layers * (attention + feed_forward)
    embeddings = model.vocab_size * model.d_model * (1 if model.tied_embedding else 2)
    assert round((layers + embeddings) / 1e9, 2) == SIZES[name]


@pytest.mark.parametrize("name", SIZES)
def test_weights_and_tokenizer_come_from_a_checkpoint(name):
    assert load(name).model.init_from == ""
    config = load(name, "some/folder")
    assert (config.model.init_from, config.tokenizer.path) == ("some/folder", "")


def test_tulu_3_keeps_the_positions_of_llama_3_1_and_the_seeds():
    small = load("tulu3:8b")
    large = load("tulu3:70b")
    model = small.model
    assert (model.rope_theta, model.rope_scaling, model.rope_factor) == (5e5, "llama3", 8.0)
    assert (model.rope_low_freq_factor, model.rope_high_freq_factor) == (1.0, 4.0)
    assert (model.rope_original_length, model.max_length) == (8192, 131_072)
    assert (small.seed, large.seed) == (123, 456)


def test_every_epoch_is_saved_where_people_or_a_reward_model_choose_one():
    for name, examples in (("lima:7b", 1000), ("lima:65b", 1000), ("instructgpt:1b", 12_725)):
        train = load(name).train
        assert train.save_every == round(examples / train.batch_size)
        assert train.max_to_keep == train.epochs


def test_an_unknown_size_is_an_error_that_names_the_sizes():
    with pytest.raises(UserError, match="a size of 7b, 13b; got '7'; did you mean '7b'"):
        config_file.load("configs/alpaca.py:7")
    alpaca = load("alpaca:13b")
    assert (alpaca.optimizer.learning_rate, alpaca.train.epochs) == (1e-5, 5.0)
    assert (alpaca.model.d_model, alpaca.model.n_layers) == (5120, 40)


@pytest.mark.parametrize("size", ["8b", "70b"])
def test_tulu3_prefers_by_means_with_a_beta_of_5(size):
    config = load(f"tulu3_dpo:{size}")
    assert (config.preference.loss, config.preference.beta) == ("sigmoid_norm", 5.0)
    assert config.data.mixture == f"tulu3_preferences_{size}"
    assert config.data.schema == "preference"
