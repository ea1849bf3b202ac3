"""Configs: files, overrides, checks, and the errors that a user reads."""

import dataclasses
import glob
import json
import re

import pytest

from ift_jax.config import files as config_file
from ift_jax.config.checks import check
from ift_jax.config.fields import rules_of
from ift_jax.config.help import help_lines
from ift_jax.config.renamed_fields import ELSEWHERE, RENAMED
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
    loaded = config_file.load_stages(path)
    configs = [loaded] if isinstance(loaded, Config) else [stage.config for stage in loaded]
    for config in configs:
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
        ("--config.train.steps=many", "--config.train.steps: expected a whole number; got 'many'"),
        ("--config.data.pack=maybe", "--config.data.pack: expected True or False; got 'maybe'"),
        ("--config.data.modules=(1,)", "config.data.modules: expected a tuple of texts, such as"),
        ("--config.data.modules=(a b)", "--config.data.modules: expected a tuple, such as ('a',)"),
        ("--config.evaluation.stop_ids=x", "expected a tuple of whole numbers, such as (1, 2)"),
        ("--config.optimizer.name=adam", "config.optimizer.name: expected one of adamw, adafactor"),
        ("--config.model.n_kv_heads=3", "config.model.n_kv_heads: expected a divisor"),
        (
            "--config.train.gradient_accumulation_steps=3",
            "config.train.gradient_accumulation_steps: expected a divisor",
        ),
        ("--config.train.epochs=2", "are both set; set one"),
        ("--config.train.batch_size=0", "config.train.batch_size: expected a positive number"),
        ("--config.model.dropout=1", "config.model.dropout: expected 0 or more and less than 1"),
        ("--config.model.dropout_schedule=cosine", "expected one of constant, linear"),
        ("--config.train.batch_tokens=1000", "expected a multiple of the row's 128 tokens; got"),
        ("--config.train.batch_tokens=2048", "batch_tokens 2048 are 16 rows of 128; set one"),
        ("--config.data.mixture=", "config.data.mixture"),
    ],
)
def test_mistakes_are_named(override, message):
    with pytest.raises(UserError) as error:
        config_file.load("configs/quickstart.py", [override])
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "--config.train.num_train_epochs=3",
            "--config.train.num_train_epochs: no such field; Hugging Face's num_train_epochs is "
            "train.epochs here",
        ),
        (
            "--config.per_device_train_batch_size=8",
            "--config.per_device_train_batch_size: no such field; Hugging Face's "
            "per_device_train_batch_size is train.batch_size (rows over all devices) here",
        ),
        ("--config.learning_rate=1e-4", "learning_rate is optimizer.learning_rate"),
        (
            "--config.optimizer.gradient_accumulation_steps=2",
            "gradient_accumulation_steps is train.gradient_accumulation_steps",
        ),
        ("--config.train.seed=1", "--config.train.seed: no such field; seed is config.seed"),
        ("--config.train.max_length=9", "max_length is data.max_length or model.max_length"),
        ("--config.data.row_length=64", "row_length was renamed to data.max_length"),
        ("--config.train.microbatches=2", "renamed to train.gradient_accumulation_steps"),
        (
            "--config.micro_batch_size=2",
            "axolotl's micro_batch_size is train.batch_size (rows over",
        ),
        ("--config.sequence_len=9", "axolotl's sequence_len is data.max_length here"),
        ("--config.data.sample_packing=1", "axolotl's sample_packing is data.pack here"),
        ("--config.base_model=x", "axolotl's base_model is model.init_from here"),
        ("--config.lora.r=8", "--config.lora.r: no such field; Hugging Face's r is lora.rank here"),
        ("--config.lora_r=8", "axolotl's lora_r is lora.rank here"),
        ("--config.cutoff_len=9", "LLaMA-Factory's cutoff_len is data.max_length here"),
        ("--config.num_epochs=2", "axolotl's num_epochs is train.epochs here"),
        ("--config.train.train_steps=2", "T5X's train_steps is train.steps here"),
        ("--config.seq_len=9", "no such field; seq_len is data.max_length here"),
        ("--config.lora.use_dora=1", "Hugging Face's use_dora is lora.dora here"),
    ],
)
def test_names_from_elsewhere_are_answered_with_the_name_here(override, message):
    with pytest.raises(UserError) as error:
        config_file.load("configs/quickstart.py", [override])
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("config.train.num_train_epochs = 3", "Hugging Face's num_train_epochs is train.epochs"),
        ("config.data.encoder_length = 3", "encoder_length was renamed to data.inputs_length"),
        ("config.trian.steps = 3", "config.py:4: no such field 'trian'; did you mean 'train'?"),
        ("config.train.steps = config.train.stepz", "config.py:4: no such field 'stepz'; did you"),
        ("config.train.steps = config.bf16", "'bf16'; Hugging Face's bf16 is model.dtype here"),
        (
            "config.train.steps = 'many'",
            "config.py:4: steps: expected a whole number; got 'many' (str)",
        ),
        ("config.optimizer = 'adamw'", "config.py:4: optimizer: expected a section; got 'adamw'"),
        ("config.data.modules = ('a', 1)", "config.data.modules: expected a tuple of texts"),
        ("config.train = {'steps': True}", "config.train.steps: expected a whole number; got True"),
        ("config.train.steps = None", "config.train.steps: expected a whole number; got None"),
        ("config.data.root = 10 ** 5000", "config.py:4: "),
        ("config.train.steps = 10 ** 5000", "config.train.steps: expected at most 2,147,483,647"),
        ("config.train.steps = None.many", "config.py:4: AttributeError: 'NoneType' object has no"),
        ("raise SystemExit(3)", "config.py:4: SystemExit: 3"),
        ("raise RecursionError", "config.py:4: RecursionError"),
        ("open('/none/there')", "No such file or directory: '/none/there'"),
        ("(lambda f: f(f))(lambda f: f(f))", "config.py:4: RecursionError: maximum recursion"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path, line, message):
    file = tmp_path / "config.py"
    file.write_text(
        "from ift_jax.config.files import default_config\n"
        f"def get_config():\n    config = default_config()\n    {line}\n    return config\n"
    )
    with pytest.raises(UserError) as error:
        config_file.load(str(file))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_every_name_from_elsewhere_has_a_place_here():
    sections = {field.name: getattr(Config(), field.name) for field in dataclasses.fields(Config)}
    named = [*RENAMED.values(), *(now for table in ELSEWHERE.values() for now in table.values())]
    for now in named:
        if now in ("", "seed") or now.startswith(("the flag", "the command", "automatic")):
            continue
        for place in re.findall(r"\w+\.\w+", now):
            section, name = place.split(".")
            assert hasattr(sections[section], name) or hasattr(EncoderDecoderConfig(), name), now
        assert re.match(r"\w+\.\w+", now), now


def test_a_config_json_of_before_is_refused_in_one_line(tmp_path):
    values = json.loads(config_file.to_json(config_file.load("configs/quickstart.py")))
    values["data"]["row_length"] = values["data"].pop("max_length")
    values["train"]["keep"] = values["train"].pop("max_to_keep")
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(UserError) as error:
        config_file.from_json(str(tmp_path / "config.json"))
    assert "data.row_length is now data.max_length, train.keep is now train.max_to_keep" in str(
        error.value
    )
    assert "start a new workdir" in str(error.value) and "\n" not in str(error.value)


def test_help_names_every_field_with_its_default_and_choices():
    text = "\n".join(help_lines())
    for config in (Config(), Config(model=EncoderDecoderConfig())):
        for section in dataclasses.fields(config):
            value = getattr(config, section.name)
            for field in dataclasses.fields(value) if dataclasses.is_dataclass(value) else ():
                assert f"  {section.name}.{field.name}: " in text
                assert rules_of(field).help.endswith((".", ".)")), field.name
    schedules = "one of constant, linear, cosine, rsqrt, wsd"
    assert f"optimizer.schedule: str = 'cosine'  ({schedules})" in text
    assert "model.dropout: float = 0.0  (0 or more and less than 1)" in text
    assert max(map(len, text.splitlines())) <= 100


def test_row_lengths_are_those_of_the_architecture():
    data = DataConfig(max_length=10, inputs_length=7, targets_length=3)
    assert Config(data=data).row_lengths == (0, 10)
    of_encoder_decoder = Config(data=data, model=EncoderDecoderConfig()).row_lengths
    assert of_encoder_decoder == (7, 3) and of_encoder_decoder.total == 10


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
    names = ("data", "model", "model_shapes", "renamed_fields", "schema", "training")
    definitions = [f"ift_jax/config/{name}.py" for name in names]
    source = ""
    for path in glob.glob("ift_jax/**/*.py", recursive=True):
        if path not in definitions:
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
    with pytest.raises(UserError, match=r"batch_size: 32, but batch_tokens 1048576 are 1,024 rows"):
        config_file.load("configs/t0.py:3b", ["--config.train.batch_size=32"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:\n    pass\n", "bad.py:1: invalid syntax"),
        ("def get_config():\n    pass\n", "bad.py: get_config() must return the ConfigDict"),
        ("def get_config():\n    return 1 / 0\n", "bad.py:2: ZeroDivisionError: division by zero"),
        (
            "from ift_jax.config_file import default_config\n",
            "bad.py:1: the module ift_jax.config_file is now ift_jax.config.files",
        ),
    ],
)
def test_what_a_config_file_raises_is_one_line(tmp_path, text, message):
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises(UserError) as error:
        config_file.load(str(tmp_path / "bad.py"))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_values_that_no_run_could_use_are_refused():
    for override, message in (
        ("--config.optimizer.learning_rate=nan", "expected a finite number; got nan"),
        ("--config.train.epochs=2", r"steps=\d+ and epochs=2 are both set"),
    ):
        with pytest.raises(UserError, match=message):
            config_file.load("configs/quickstart.py", [override])
    with pytest.raises(UserError, match="expected one of decoder, encoder_decoder; got 'decodr'"):
        config_file.load("configs/quickstart.py:decodr")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(sliding_window=8), "sliding_window: 8, but layers of model.block 't5' do not read"),
        (dict(block="gemma", bias_per_layer=True), "bias_per_layer: True, but layers of model.b"),
        (dict(vocab_size=9, decoder_start_id=9), "expected an id below the vocabulary's 9; got 9"),
        (dict(block="gemma", activation="relu"), "activation: 'relu' has no gate"),
        (dict(block="gemma", n_kv_heads=4), "n_kv_heads: expected a divisor of n_heads 6; got 4"),
        (dict(block="gemma", encoder_n_heads=4, n_kv_heads=3), "divisor of encoder_n_heads 4"),
        (dict(block="gemma", encoder_d_model=8), "set encoder_embedding to True"),
        (dict(block="gemma", head_dim=7), "head_dim: expected an even number"),
    ],
)
def test_the_fields_of_an_encoder_decoder_fit_together(fields, message):
    with pytest.raises(UserError) as error:
        check(Config(model=EncoderDecoderConfig(**fields)))
    assert message in str(error.value) and str(error.value).startswith("config.model.")
