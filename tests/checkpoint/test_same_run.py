"""What may change in the config of a run that is resumed, and what may not."""

import dataclasses
from functools import reduce

import pytest

from ift_jax.checkpoint.same_run import changed_training, check_same_config, moved_start
from ift_jax.config import files as config_files
from ift_jax.errors import UserError

CONFIG = config_files.load("configs/quickstart.py")


def changed(**fields):
    """`CONFIG` with other fields, named like `train__steps`."""

    def replace(config, item):
        section, _, name = item[0].partition("__")
        value = (
            dataclasses.replace(getattr(config, section), **{name: item[1]}) if name else item[1]
        )
        return dataclasses.replace(config, **{section: value})

    return reduce(replace, fields.items(), CONFIG)


def check(now, before=CONFIG, **options):
    options = {"knows_content": True, "allow_new_data": False} | options
    check_same_config("W", before, now, **options)


FREE = {
    "train__steps": 9,
    "train__save_every": 3,
    "train__gradient_accumulation_steps": 2,
    "optimizer__learning_rate": 0.5,
    "optimizer__weight_decay": 0.1,
    "loss__z_loss": 1e-4,
    "evaluation__examples": 3,
    "mesh__fsdp": 2,
    "model__remat": "full",
    "model__attention": "xla",
    "data__store_dir": "elsewhere",
    "data__processes": 1,
    "data__max_dropped_fraction": 0.5,
}
FIXED = {
    "model__d_ff": 64,
    "lora__rank": 2,
    "train__batch_size": 64,
    "optimizer__freeze": "embedding",
    "optimizer__name": "lion",
    "tokenizer__train_vocab_size": 99,
    "model__init_from": "other",
    "seed": 5,
}
DATA = {
    "data__max_length": 64,
    "data__mixture": "other",
    "data__window": 7,
    "format__train_on": "last",
}
BY_CONTENT = {
    "data__root": "/moved",
    "data__modules": ("tasks.other",),
    "tokenizer__path": "/moved/tokenizer.model",
    "format__template": "copy.jinja",
}


@pytest.mark.parametrize("field", FREE)
def test_how_a_run_proceeds_may_change(field):
    check(changed(**{field: FREE[field]}))


@pytest.mark.parametrize("field", FIXED)
def test_the_model_and_the_kind_of_optimizer_may_not_change(field):
    for allow_new_data in (False, True):
        name = field.replace("__", ".")
        with pytest.raises(
            UserError, match=rf"config.{name}: the run in W has .*, now it is "
        ) as e:
            check(changed(**{field: FIXED[field]}), allow_new_data=allow_new_data)
        assert str(e.value).endswith("use another --workdir for another run")


@pytest.mark.parametrize("field", DATA)
def test_data_may_change_only_if_that_is_allowed(field):
    now = changed(**{field: DATA[field]})
    with pytest.raises(UserError, match=rf"config.{field.replace('__', '.')}.*--allow-new-data"):
        check(now)
    check(now, allow_new_data=True)


@pytest.mark.parametrize("field", BY_CONTENT)
def test_a_path_may_change_where_its_content_is_compared(field):
    now = changed(**{field: BY_CONTENT[field]})
    check(now)
    with pytest.raises(UserError, match=rf"config.{field.replace('__', '.')}"):
        check(now, knows_content=False)


def test_the_tokenizer_that_a_run_trained_may_be_named_by_its_path():
    assert CONFIG.tokenizer.train_vocab_size
    check(changed(tokenizer__path="W/tokenizer", tokenizer__train_vocab_size=0))


def test_a_model_that_was_moved_is_told_but_not_refused():
    before, now = changed(model__init_from="/a"), changed(model__init_from="/b")
    check(now, before)
    assert (
        moved_start(before, now) == "config.model.init_from: the run began from /a; /b is not read"
    )
    assert moved_start(before, before) == moved_start(CONFIG, CONFIG) == ""
    assert moved_start(changed(model__init_from="a"), changed(model__init_from="./a/")) == ""


def test_what_a_complete_run_would_be_trained_again_for():
    now = changed(
        optimizer__learning_rate=0.5, train__steps=9, train__log_every=1, evaluation__examples=3
    )
    assert changed_training(CONFIG, now) == {
        "optimizer.learning_rate": (CONFIG.optimizer.learning_rate, 0.5),
        "train.steps": (CONFIG.train.steps, 9),
    }
