"""What a config has that sets nothing: the defaults of finetuning."""

import dataclasses

import pytest

from ift_jax.config import files
from ift_jax.config.checks import check
from ift_jax.config.schema import Config, DecoderConfig, LoraConfig, OptimizerConfig
from ift_jax.errors import UserError
from ift_jax.training.setup import describe_training


@pytest.mark.parametrize(
    ("optimizer", "init_from", "rank", "rate"),
    [
        ("adamw", "", 0, 1e-3),
        ("muon", "", 0, 1e-3),
        ("adamw", "/models/base", 0, 2e-5),
        ("adamw", "/models/base", 8, 2e-4),
        ("adafactor", "/models/base", 0, 1e-3),
    ],
)
def test_the_learning_rate_follows_from_what_is_trained(optimizer, init_from, rank, rate):
    config = Config(
        model=DecoderConfig(init_from=init_from),
        optimizer=OptimizerConfig(name=optimizer),
        lora=LoraConfig(rank=rank),
    )
    resolved = check(config)
    assert resolved.optimizer.learning_rate == rate
    assert check(resolved) == resolved
    given = dataclasses.replace(config.optimizer, learning_rate=3e-6)
    assert check(dataclasses.replace(config, optimizer=given)).optimizer.learning_rate == 3e-6


@pytest.mark.parametrize("optimizer", ["lion", "sgd", "muon"])
def test_an_optimizer_without_a_usual_rate_asks_for_one(optimizer):
    config = Config(
        model=DecoderConfig(init_from="/models/base"), optimizer=OptimizerConfig(name=optimizer)
    )
    with pytest.raises(UserError, match="config.optimizer.learning_rate: expected a positive"):
        check(config)


def test_a_run_saves_evaluates_and_has_room_for_ordinary_chats_by_default():
    config = check(Config(model=DecoderConfig(init_from="/models/base")))
    assert (config.train.save_every, config.train.eval_every) == (500, 500)
    assert (config.data.max_length, config.train.batch_size) == (2048, 8)
    assert describe_training(config) == (
        "optimizer: adamw, cosine 2e-05, warm-up 0%; a checkpoint every 500 steps, an eval loss "
        "every 500 steps"
    )
    train = dataclasses.replace(config.train, save_every=0, eval_every=1)
    assert describe_training(dataclasses.replace(config, train=train)).endswith(
        "; a checkpoint at the end, an eval loss every 1 step"
    )
    wsd = dataclasses.replace(config.optimizer, schedule="wsd", decay_shape="1-sqrt")
    described = describe_training(dataclasses.replace(config, optimizer=wsd))
    assert "wsd 2e-05, warm-up 0%, 1-sqrt decay 10%;" in described


# What each recipe of the literature publishes; none of it may come from a default.
PUBLISHED_RATES = {
    "configs/alpaca.py:7b": 2e-5,
    "configs/flan_137b_shape.py": 3e-5,
    "configs/flan_t5.py:xl": 5e-4,
    "configs/instructgpt.py": 9.65e-6,
    "configs/lima.py:7b": 1e-5,
    "configs/t0.py:11b": 1e-3,
    "configs/t5_finetune.py": 1e-3,
    "configs/tulu2.py:7b": 2e-5,
    "configs/tulu3.py:8b": 5e-6,
    "configs/tulu3.py:70b": 2e-6,
}


@pytest.mark.parametrize(("recipe", "rate"), PUBLISHED_RATES.items())
def test_a_recipe_keeps_its_published_rate_with_and_without_a_checkpoint(recipe, rate):
    for items in ((), ("--config.model.init_from=/models/base",)):
        assert files.load(recipe, items).optimizer.learning_rate == rate
