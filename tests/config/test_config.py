"""Configs: files, overrides, checks, and the errors that a user reads."""

import dataclasses
import glob
import json

import pytest

from ift_jax.config import files as config_file
from ift_jax.config.schema import (
    Config,
    DataConfig,
    DecoderConfig,
    EncoderDecoderConfig,
    TrainConfig,
)
from ift_jax.errors import UserError

FILES = sorted(set(glob.glob("configs/*.py")) - {"configs/__init__.py"})


@pytest.mark.parametrize("path", FILES)
def test_every_config_loads_and_survives_json(path, tmp_path):
    config = config_file.load(path)
    (tmp_path / "config.json").write_text(config_file.to_json(config))
    assert config_file.from_json(str(tmp_path / "config.json")) == config


def test_overrides_are_typed():
    config = config_file.load(
        "configs/quickstart.py",
        [
            "--config.optimizer.learning_rate=1",
            "--config.data.modules=('a','b')",
            "--config.train.steps=7",
            "--config.data.pack=False",
        ],
    )
    assert config.optimizer.learning_rate == 1.0
    assert config.data.modules == ("a", "b")
    assert config.train.steps == 7 and config.data.pack is False


def test_a_file_may_take_an_argument():
    assert config_file.load("configs/jsonl.py:some/file.jsonl").data.root == "some/file.jsonl"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--config.optimizer.learning_rat=1", "did you mean 'learning_rate'"),
        ("--config.optimzer.learning_rate=1", "did you mean 'optimizer'"),
        ("--config.train=5", "is a section"),
        ("--config.train.steps.x=5", "is a value, not a section"),
        ("--config.train.steps=many", "--config.train.steps=many"),
        ("--config.optimizer.name=adam", "config.optimizer.name: expected one of adamw, adafactor"),
        ("--config.model.n_kv_heads=4", "config.model.n_kv_heads: expected a divisor"),
        (
            "--config.train.gradient_accumulation_steps=3",
            "config.train.gradient_accumulation_steps: expected a divisor",
        ),
        ("--config.train.epochs=2", "either steps or epochs"),
        ("--config.train.batch_size=0", "config.train.batch_size: expected a positive number"),
        ("--config.model.dropout=1.5", "config.model.dropout: expected 0 to 1"),
        ("--config.model.dropout_schedule=cosine", "expected one of constant, linear"),
        ("--config.train.batch_tokens=1000", "expected a multiple of the row's 128 tokens; got"),
        ("--config.train.batch_tokens=1024", "batch_tokens 1024 are 8 rows of 128; set one"),
        ("--config.tokenizer.path=x.model", "not both"),
        ("--config.data.mixture=", "config.data.mixture"),
    ],
)
def test_mistakes_are_named(override, message):
    with pytest.raises(UserError) as error:
        config_file.load("configs/quickstart.py", [override])
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file():
    with pytest.raises(UserError, match="no such file: configs/none.py"):
        config_file.load("configs/none.py")


def test_unknown_fields_of_a_json_are_named(tmp_path):
    values = json.loads(config_file.to_json(config_file.load("configs/quickstart.py")))
    values["train"]["stepz"] = 1
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match="config.train.stepz: no such field; did you mean 'steps'"):
        config_file.from_json(str(tmp_path / "config.json"))


def test_every_field_is_read_somewhere():
    """An option that nothing reads is a lie."""
    source = ""
    for path in glob.glob("ift_jax/**/*.py", recursive=True):
        if path != "ift_jax/config/schema.py":
            source += open(path, encoding="utf-8").read()
    sections = [
        f.default for f in dataclasses.fields(Config) if dataclasses.is_dataclass(f.default)
    ]
    for section in [
        *sections,
        EncoderDecoderConfig(),
        DataConfig(),
        TrainConfig(),
        DecoderConfig(),
    ]:
        for field in dataclasses.fields(section):
            assert f".{field.name}" in source or f'"{field.name}"' in source, field.name


def test_a_batch_in_tokens():
    items = ["--config.train.batch_size=0", "--config.train.batch_tokens=2048"]
    config = config_file.load("configs/quickstart.py", [*items, "--config.data.max_length=128"])
    assert (config.train.batch_size, config.train.batch_tokens) == (16, 2048)
    # T0's 2^20: 1,024 rows of 1,024 encoder tokens; other lengths, other rows.
    for length in (1024, 512):
        config = config_file.load("configs/t0.py:3b", [f"--config.data.inputs_length={length}"])
        assert config.train.batch_size == 2**20 // length
    assert config_file.from_dict(json.loads(config_file.to_json(config))) == config
    with pytest.raises(UserError, match=r"batch_size: 32, but batch_tokens 1048576 are 1024 rows"):
        config_file.load("configs/t0.py:3b", ["--config.train.batch_size=32"])
