"""Stages in config files: what each one's config is, and how mistakes in them are named."""

import dataclasses

import pytest

from ift_jax.config import files
from ift_jax.config.schema import Config
from ift_jax.config.stages import UNKNOWN_START
from ift_jax.errors import UserError

COMMON = """\
data: {mixture: m, max_length: 64}
tokenizer: {path: t.model}
train:
  steps: 10
"""
STAGES = """\
stages:
- name: mid
  optimizer: {learning_rate: 1e-3, schedule: wsd}
- name: sft
  data: {mixture: other, max_length: 128}
  format:
    train_on: last
  optimizer: {keep_state: true}
"""


def load(tmp_path, text, *overrides):
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return files.load_stages(str(path), overrides)


def test_a_stage_is_the_rest_of_the_file_with_its_own_fields(tmp_path):
    mid, sft = load(tmp_path, COMMON + STAGES)
    assert (mid.name, sft.name) == ("mid", "sft")
    single = load(tmp_path, COMMON)
    assert dataclasses.replace(mid.config, optimizer=single.optimizer) == single
    assert (mid.config.optimizer.learning_rate, mid.config.optimizer.schedule) == (1e-3, "wsd")
    assert (sft.config.data.mixture, sft.config.data.max_length) == ("other", 128)
    assert (sft.config.format.train_on, sft.config.train.steps) == ("last", 10)
    assert sft.config.model.init_from == UNKNOWN_START
    # The default of a finetuned model, because a stage before it is one.
    assert sft.config.optimizer.learning_rate == 2e-5
    assert single.optimizer.learning_rate == 1e-3


def test_a_python_file_says_the_same(tmp_path):
    file = tmp_path / "stages.py"
    file.write_text(
        "from ift_jax.config.files import default_config\n"
        "def get_config():\n"
        "    config = default_config()\n"
        "    config.data.mixture, config.data.max_length = 'm', 64\n"
        "    config.tokenizer.path, config.train.steps = 't.model', 10\n"
        "    config.stages = [\n"
        "        dict(name='mid', optimizer=dict(learning_rate=1e-3, schedule='wsd')),\n"
        "        dict(name='sft', data=dict(mixture='other', max_length=128),\n"
        "             format=dict(train_on='last'), optimizer=dict(keep_state=True)),\n"
        "    ]\n"
        "    return config\n"
    )
    assert files.load_stages(str(file)) == load(tmp_path, COMMON + STAGES)


def test_an_override_is_for_all_stages_or_for_one(tmp_path):
    overrides = ["--config.data.max_length=32", "--config.stages.sft.train.steps=3"]
    mid, sft = load(tmp_path, COMMON + STAGES, *overrides)
    assert [each.config.data.max_length for each in (mid, sft)] == [32, 32]
    assert [each.config.train.steps for each in (mid, sft)] == [10, 3]
    # The one of a stage wins over the one of all.
    *_, sft = load(tmp_path, COMMON + STAGES, *overrides, "--config.train.steps=5")
    assert sft.config.train.steps == 3


def test_one_stage_can_be_looked_at_alone(tmp_path):
    load(tmp_path, COMMON + STAGES)
    path = str(tmp_path / "run.yaml")
    sft = files.load(path, stage="sft")
    assert sft.data.mixture == "other"
    assert sft.model.init_from == "" and not sft.optimizer.keep_state
    with pytest.raises(UserError, match="has the stages mid, sft; name one by --stage"):
        files.load(path)
    with pytest.raises(UserError, match="--stage end: no such stage of .*; there are mid, sft"):
        files.load(path, stage="end")
    load(tmp_path, COMMON)
    with pytest.raises(UserError, match="--stage sft: .* has no stages"):
        files.load(path, stage="sft")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stages: 3\n", ":5: config.stages: expected a list of stages"),
        ("stages:\n- mid\n", ":5: config.stages: stage 1: expected a name and sections"),
        ("stages:\n- train: {steps: 1}\n", "config.stages: stage 1: expected a name of letters"),
        ("stages:\n- name: a b\n", "stage 1: expected a name of letters, digits, - and _"),
        ("stages:\n- name: a\n- name: a\n", "stage 2: the name 'a' is that of an earlier stage"),
        (
            "stages:\n- name: a\n  train: {step: 1}\n",
            ":7: config.stages.a.train.step: no such field; did you mean 'steps'?",
        ),
        (
            "stages:\n- name: a\n- name: b-2\n  train:\n    steps: x\n",
            ":9: config.stages.b-2.train.steps: expected a whole number; got 'x'",
        ),
        (
            "optimizer: {keep_state: true}\nstages:\n- name: a\n",
            ":5: config.stages.a.optimizer.keep_state: expected model.init_from",
        ),
        (
            "stages:\n- name: a\n- name: b\n  optimizer: {name: lion, keep_state: true}\n"
            "  train: {steps: 3}\n",
            "config.stages.b.optimizer.learning_rate: expected a positive number",
        ),
        (
            "stages:\n- name: a\n- name: b\n"
            "  optimizer: {name: lion, keep_state: true, learning_rate: 1}\n",
            ":8: config.stages.b.optimizer.keep_state: optimizer.name of stage a is 'adamw', here",
        ),
        (
            "lora: {rank: 2}\nstages:\n- name: a\n- name: b\n  optimizer: {keep_state: true}\n",
            "config.stages.b.optimizer.keep_state: adapters begin anew, and their moments",
        ),
        (
            "stages:\n- name: a\n- name: b\n  model: {init_from: m}\n",
            ":8: config.stages.b.model.init_from: a stage begins from the checkpoint of the one",
        ),
        (
            "stages:\n- name: a\n- name: b\n  model: 5\n",
            ":8: config.stages.b.model: expected a section",
        ),
        (
            "stages:\n- name: a\n  train: {epochs: 2}\n",
            "config.stages.a.train: steps=10 and epochs=2 are both set",
        ),
        ("stages:\n- name: a\n  train: {steps: 1}\n  train: {steps: 2}\n", "is given twice"),
        ("train_on: last\nstages:\n- name: a\n", ":5: config.train_on: no such field"),
    ],
)
def test_a_mistake_names_the_stage_the_field_and_the_line(tmp_path, text, expected):
    with pytest.raises(UserError) as error:
        load(tmp_path, COMMON + text)
    message = str(error.value)
    assert expected in message
    assert message.startswith(str(tmp_path / "run.yaml"))
    assert "\n" not in message


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("--config.train.step=1", "--config.train.step: no such field"),
        ("--config.train.steps=x", "--config.train.steps: expected a whole number; got 'x'"),
        ("--config.stages.sft.train.step=1", "--config.stages.sft.train.step: no such field"),
        ("--config.stages.sft.train.steps=x", "--config.stages.sft.train.steps: expected a whole"),
        (
            "--config.stages.end.train.steps=1",
            "--config.stages.end: no such stage; there are mid",
        ),
        ("--config.stages.sft.train.steps=-1", "config.stages.sft.train.steps: expected 0 or more"),
    ],
)
def test_a_wrong_override_is_named(tmp_path, override, expected):
    with pytest.raises(UserError) as error:
        load(tmp_path, COMMON + STAGES, override)
    assert expected in str(error.value)


def test_a_config_without_stages_has_none(tmp_path):
    assert isinstance(load(tmp_path, COMMON), Config)
    with pytest.raises(UserError, match="--config.stages.sft.train.steps: no such field"):
        load(tmp_path, COMMON, "--config.stages.sft.train.steps=1")
