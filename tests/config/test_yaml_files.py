"""Configs in YAML: what is read, what is refused and where, and that what is written reads back."""

import dataclasses

import pytest

from ift_jax.config import files, yaml_files
from ift_jax.config.schema import Config, EncoderDecoderConfig
from ift_jax.errors import UserError

MINIMAL = "data: {mixture: m}\ntokenizer: {path: t.model}\ntrain:\n  steps: 10\n"


def load(tmp_path, text, *overrides, name="run.yaml"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return files.load(str(path), overrides)


def test_fields_and_overrides_are_read(tmp_path):
    text = MINIMAL + "optimizer:\n  learning_rate: 1e-4\n  name: lion\n"
    config = load(tmp_path, text, "--config.train.steps=20", "--config.data.modules=('a','b')")
    assert config.optimizer.learning_rate == 1e-4  # YAML 1.1 reads 1e-4 as a text.
    assert config.optimizer.name == "lion"
    assert config.train.steps == 20
    assert config.data.modules == ("a", "b")
    assert config.loss == Config().loss


def test_the_architecture_decides_the_fields_of_the_model(tmp_path):
    text = MINIMAL + "model: {architecture: encoder_decoder, n_encoder_layers: 7}\n"
    assert load(tmp_path, text).model == EncoderDecoderConfig(n_encoder_layers=7)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train: [\n", ":2: not YAML: "),
        ("- a\n", ":1: expected sections such as 'train:'"),
        ("train:\n  steps: 1\n  steps: 2\n", ":3: train.steps is given twice, first in line 2"),
        ("train:\n  1: 2\n", ":2: expected the name of a field; got '1'"),
        ("train:\n  step: 1\n", ":2: config.train.step: no such field"),
        ("\ntrain:\n  steps: x\n", ":3: config.train.steps: expected a whole number; got 'x'"),
        (MINIMAL + "optimizer: {learning_rate: -1}\n", ":5: config.optimizer.learning_rate: "),
        (MINIMAL + "train_on: last\n", ":5: config.train_on: no such field"),
        (MINIMAL + "loss: {z_loss: .nan}\n", ":5: config.loss.z_loss: expected a finite number"),
        ("a: !!python/object:os.system x\n", ":1: not YAML: could not determine a constructor"),
        ("a: &x [*x]\n", "no such field"),
    ],
)
def test_a_mistake_is_named_with_file_and_line(tmp_path, text, expected):
    with pytest.raises(UserError) as error:
        load(tmp_path, text)
    message = str(error.value)
    assert expected in message
    assert message.startswith(str(tmp_path / "run.yaml"))
    assert "\n" not in message


def test_a_wrong_override_is_named(tmp_path):
    with pytest.raises(UserError, match=r"--config.train.step: no such field"):
        load(tmp_path, MINIMAL, "--config.train.step=3")


def test_only_python_takes_an_argument(tmp_path):
    (tmp_path / "run.yaml").write_text(MINIMAL)
    with pytest.raises(UserError, match="only a Python file takes an argument"):
        files.load(f"{tmp_path / 'run.yaml'}:7b")


def test_what_is_written_reads_back(tmp_path):
    config = files.from_dict(
        {
            "seed": 3,
            "data": {"mixture": "m", "modules": ["a.b", "c"], "root": "yes: [no]"},
            "format": {"template": "{%- for m in messages %}\n  {{ m }} # 'x'\n{% endfor %}"},
            "tokenizer": {"path": "1e5", "added_tokens": ["<|a|>", "null", "\u00e9"]},
            "optimizer": {"learning_rate": 1e-5, "freeze": "^x$"},
            "train": {"steps": 3},
        }
    )
    text = yaml_files.write(config, (), {"train.steps": "because\nof this"})
    assert "  # because\n  # of this\n  steps: 3\n" in text
    assert load(tmp_path, text) == config


def test_a_run_s_config_json_is_a_config(tmp_path):
    config = files.from_dict(
        {"data": {"mixture": "m"}, "tokenizer": {"path": "t"}, "train": {"steps": 3}}
    )
    assert load(tmp_path, files.to_json(config), name="config.json") == config


def test_fields_that_something_else_decides_are_left_out():
    config = dataclasses.replace(Config(), seed=1)
    assert "d_model" not in yaml_files.write(
        dataclasses.replace(config, model=dataclasses.replace(config.model, d_model=64)),
        {"model.d_model"},
        {},
    )
