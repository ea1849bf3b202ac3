"""The recipes of FLAN expand to the published numbers."""

import dataclasses

import pytest

from ift_jax.config import files as config_file


# `millions` counts the parameters of T5 1.1 with an output head for its 32,128 tokens.
@pytest.mark.parametrize(
    ("size", "steps", "millions"),
    [
        ("small", 98_000, 77),
        ("base", 84_000, 248),
        ("large", 64_000, 783),
        ("xl", 38_000, 2850),
        ("xxl", 14_000, 11_135),
    ],
)
def test_flan_t5(size, steps, millions):
    config = config_file.load(f"configs/flan_t5.py:{size}")
    train = config.train
    optimizer = config.optimizer
    data = config.data
    model = config.model
    assert (train.steps, train.batch_size, train.epochs) == (steps, 64, 0)
    assert (optimizer.name, optimizer.learning_rate) == ("adafactor", 5e-4)
    assert (optimizer.schedule, optimizer.warmup_steps) == ("constant", 0)
    assert (data.inputs_length, data.targets_length, data.pack) == (2048, 512, True)
    assert (config.loss.normalization, config.loss.z_loss, model.dropout) == ("sum", 1e-4, 0.05)
    assert (data.modules, data.mixture) == (("tasks.flan.collection",), "flan_collection")
    attention = 4 * model.d_model * model.n_heads * model.head_dim
    feed_forward = 3 * model.d_model * model.d_ff
    layers = model.n_encoder_layers * (attention + feed_forward)
    layers += model.n_decoder_layers * (2 * attention + feed_forward)
    count = layers + 2 * 32_128 * model.d_model
    assert model.vocab_size == 32_128 and not model.tied_embedding
    assert round(count / 1e6) == pytest.approx(millions, abs=2)
    from_checkpoint = config_file.load(f"configs/flan_t5.py:{size},weights")
    assert from_checkpoint.model.init_from == "weights" and not from_checkpoint.tokenizer.path


def test_flan_137b():
    config = config_file.load("configs/flan_137b_shape.py")
    assert config.train.batch_tokens == config.train.batch_size * config.data.max_length == 8192
    assert (config.train.steps, config.data.pack) == (30_000, True)
    optimizer = dataclasses.asdict(config.optimizer)
    expected = {"name": "adafactor", "learning_rate": 3e-5, "schedule": "constant"}
    assert expected.items() <= optimizer.items()
    assert (config.data.modules, config.data.mixture) == (("tasks.flan.flan2021",), "flan2021")
    model = config.model
    attention = 4 * model.d_model * model.n_heads * model.head_dim
    count = model.n_layers * (attention + 3 * model.d_model * model.d_ff)
    assert 136e9 < count < 139e9
