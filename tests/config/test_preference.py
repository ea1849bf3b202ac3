"""Config section `preference`: what it resolves, and what it excludes."""

import dataclasses

import pytest

from ift_jax.config.checks import check
from ift_jax.config.schema import (
    Config,
    DecoderConfig,
    EncoderDecoderConfig,
    FormatConfig,
    LoraConfig,
    LossConfig,
    PreferenceConfig,
)
from ift_jax.errors import UserError

MODEL = DecoderConfig(init_from="/models/m")


def config(kind="sigmoid", model=MODEL, **sections):
    preference = PreferenceConfig(kind, **sections.pop("preference", {}))
    return Config(model=model, preference=preference, **sections)


@pytest.mark.parametrize(
    ("loss", "beta"), [("sigmoid", 0.1), ("sigmoid_norm", 5.0), ("ipo", 0.1), ("apo_zero", 0.1)]
)
def test_beta_and_rate_are_those_that_are_usual(loss, beta):
    checked = check(config(loss))
    assert checked.preference.beta == beta and checked.data.schema == "preference"
    assert checked.optimizer.learning_rate == 1e-6
    assert check(config(loss, lora=LoraConfig(rank=8))).optimizer.learning_rate == 1e-5
    assert check(config(loss, preference={"beta": 0.7})).preference.beta == 0.7
    assert check(checked) == checked


def test_other_runs_are_left_alone():
    checked = check(Config(model=MODEL))
    assert checked.preference == PreferenceConfig() and checked.data.schema == "auto"
    assert checked.optimizer.learning_rate == 2e-5


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (config("dpo"), "preference.loss: expected one of none, sigmoid"),
        (config("none", preference={"beta": 0.1}), "preference.beta: 0.1 needs a preference.loss"),
        (config(preference={"beta": -1.0}), "preference.beta: expected 0 or more; got -1"),
        (config(preference={"label_smoothing": 0.5}), "preference.label_smoothing: expected 0 or"),
        (config("ipo", preference={"label_smoothing": 0.1}), "label_smoothing: expected 0 with"),
        (config(model=EncoderDecoderConfig()), "'encoder_decoder' does not train on pairs"),
        (config(format=FormatConfig(bidirectional_prefix=True)), "prefix: expected False"),
        (config(loss=LossConfig(normalization="sum")), "loss.normalization: 'sum' is for the loss"),
        (config(loss=LossConfig(z_loss=0.1)), "loss.z_loss: expected 0 with preference.loss="),
        (config(loss=LossConfig(label_smoothing=0.1)), "loss.label_smoothing: expected 0 with"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_what_does_not_go_together_is_named(bad, message):
    with pytest.raises(UserError, match=f"^config.*{message}"):
        check(bad)


def test_rows_of_another_shape_are_named():
    bad = config()
    bad = dataclasses.replace(bad, data=dataclasses.replace(bad.data, schema="text"))
    with pytest.raises(UserError, match="config.data.schema: expected 'auto' or 'preference'"):
        check(bad)
