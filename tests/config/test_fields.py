"""Every field's type and bounds, taken from the schema: a value outside is refused by name."""

import dataclasses
import typing

import numpy as np
import pytest

from ift_jax.config import files
from ift_jax.config.checks import check
from ift_jax.config.fields import LARGEST, Rules, of_type, rules_of
from ift_jax.config.schema import Config, DecoderConfig, EncoderDecoderConfig
from ift_jax.errors import UserError


def _fields():
    """Section, field and its type, for both architectures; the section of `seed` is ""."""
    for model in (DecoderConfig(), EncoderDecoderConfig()):
        config = Config(model=model)
        for section_field in dataclasses.fields(config):
            section = getattr(config, section_field.name)
            if not dataclasses.is_dataclass(section):
                yield model.architecture, "", section_field
                continue
            for field in dataclasses.fields(section):
                yield model.architecture, section_field.name, field


FIELDS = [
    pytest.param(*found, id=f"{found[0]}-{found[1]}.{found[2].name}")
    for found in _fields()
    if found[0] == "decoder" or found[1] == "model"
]


def _item_type(field):
    items = typing.get_args(field.type)
    return items[0] if items else field.type


def _outside(field):
    """Values of the right type that the field must refuse."""
    rules = rules_of(field)
    kind = _item_type(field)
    if kind is str:
        return ["none such"] if rules.choices else ["("] if rules.regex else []
    if kind is bool:
        return []
    least = 1 if kind is int else 1e-3
    values = [float("nan"), float("inf"), -float("inf")] if kind is float else [LARGEST + 1, 10**24]
    bounds = [
        (rules.above, 0),
        (rules.minimum, -least),
        (rules.below, 0),
        (rules.maximum, least),
    ]
    return values + [kind(bound + step) for bound, step in bounds if bound is not None]


def _config(architecture, section, field, value):
    value = (value,) if typing.get_args(field.type) else value
    values = {section: {field.name: value}} if section else {field.name: value}
    values.setdefault("model", {})["architecture"] = (
        value if (section, field.name) == ("model", "architecture") else architecture
    )
    return files.from_dict(values, trains=False)


@pytest.mark.parametrize(("architecture", "section", "field"), FIELDS)
def test_a_value_outside_is_refused_by_the_name_of_its_field(architecture, section, field):
    kind = _item_type(field)
    if kind in (int, float):
        rules = rules_of(field)
        assert rules.above is not None or rules.minimum is not None, "no lower bound"
    wrong_types = [{"a": 1}, None, b"x", object()]
    wrong_types += [] if kind is str else ["x"]
    wrong_types += [] if kind is bool else [True]
    wrong_types += [1.5] if kind is int else [3] if kind is str else []
    for value in [*_outside(field), *wrong_types]:
        with pytest.raises(UserError) as error:
            _config(architecture, section, field, value)
        name = ".".join(filter(None, ("config", section, field.name)))
        assert str(error.value).startswith(f"{name}: "), (value, str(error.value))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(("architecture", "section", "field"), FIELDS)
def test_the_default_and_every_choice_are_inside(architecture, section, field):
    for value in (field.default, *rules_of(field).choices):
        rules_of(field).check(field.name, value)


def _replaced(**sections):
    config = Config()
    if sections.pop("encoder_decoder", False):
        config = dataclasses.replace(config, model=EncoderDecoderConfig())
    for section, values in sections.items():
        replaced = dataclasses.replace(getattr(config, section), **values)
        config = dataclasses.replace(config, **{section: replaced})
    return config


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"lora": {"rank": 2}, "optimizer": {"freeze": "x"}}, "config.optimizer.freeze: with"),
        ({"lora": {"dora": True}}, "config.lora.dora: True, but lora.rank is 0"),
        ({"lora": {"alpha": 32.0}}, "config.lora.alpha: 32.0, but lora.rank is 0"),
        ({"lora": {"targets": "mlp"}}, "config.lora.targets: 'mlp', but lora.rank is 0"),
        (
            {"lora": {"rank": 2, "rank_pattern": ("a{99999999999}=8",)}},
            "config.lora.rank_pattern: expected a regular expression, = and a number, such as",
        ),
        (
            {"lora": {"quantize": "nf4"}},
            "config.lora.quantize: 'nf4', but lora.rank is 0, and quantized weights cannot be tr",
        ),
        (
            {"lora": {"rank": 2, "rank_pattern": ("mlp",)}},
            "config.lora.rank_pattern: expected a regular expression, = and a number, such as",
        ),
        ({"lora": {"rank": 2, "rank_pattern": ("=3",)}}, "config.lora.rank_pattern: expected a pa"),
        (
            {"lora": {"rank": 2, "rank_pattern": ("mlp=2.5",)}},
            "config.lora.rank_pattern: expected a whole number from 1 to 65536 after 'mlp'; got 2",
        ),
        (
            {"lora": {"rank": 2, "alpha_pattern": ("mlp=0",)}},
            "config.lora.alpha_pattern: expected a positive number after 'mlp'; got 0",
        ),
        (
            {"train": {"batch_size": 4, "gradient_accumulation_steps": 3}},
            "config.train.gradient_accumulation_steps: expected a divisor of batch_size 4; got 3",
        ),
        ({"train": {"batch_size": 0}}, "config.train.batch_size: expected a positive number"),
        (
            {"train": {"batch_size": 0, "batch_tokens": 100}, "data": {"max_length": 64}},
            "config.train.batch_tokens: expected a multiple of the row's 64 tokens; got 100",
        ),
        (
            {"train": {"batch_size": 3, "batch_tokens": 128}, "data": {"max_length": 64}},
            "config.train.batch_size: 3, but batch_tokens 128 are 2 rows of 64",
        ),
        ({"model": {"n_kv_heads": 4}}, "config.model.n_kv_heads: expected a divisor of n_heads 6"),
        ({"model": {"head_dim": 3}}, "config.model.head_dim: expected an even number"),
        (
            {"model": {"rope_low_freq_factor": 4.0}},
            "config.model.rope_high_freq_factor: expected more than rope_low_freq_factor 4; got 4",
        ),
        (
            {"encoder_decoder": True, "model": {"relative_max_distance": 16}},
            "config.model.relative_max_distance: expected more than half of relative_buckets 32",
        ),
        (
            {"encoder_decoder": True, "format": {"bidirectional_prefix": True}},
            "config.format.bidirectional_prefix: is for model.architecture 'decoder'",
        ),
        ({"mesh": {"tensor": -1}}, "config.mesh.tensor: -1 takes the devices that are left"),
    ],
)
def test_fields_that_do_not_go_together_are_named(sections, message):
    with pytest.raises(UserError) as error:
        check(_replaced(**sections))
    assert str(error.value).startswith(message)


def test_a_negative_clip_norm_would_be_gradient_ascent_and_is_refused():
    with pytest.raises(UserError, match="config.optimizer.clip_norm: expected 0 or more; got -1"):
        check(_replaced(optimizer={"clip_norm": -1.0}))


def test_numbers_of_numpy_and_lists_are_taken_as_what_they_are():
    fields = {field.name: field for field in dataclasses.fields(Config().optimizer)}
    taken = of_type("x", fields["learning_rate"], np.float32(0.5))
    assert taken == 0.5 and type(taken) is float
    steps = of_type("x", fields["warmup_steps"], np.int64(3))
    assert steps == 3 and type(steps) is int
    stop_ids = {field.name: field for field in dataclasses.fields(Config().evaluation)}["stop_ids"]
    assert of_type("x", stop_ids, [1, np.int32(2)]) == (1, 2)


def test_bounds_are_told_in_words():
    def expected(**bounds):
        return Rules("", **bounds).expected()

    assert expected(above=0) == "a positive number"
    assert expected(minimum=0, below=1) == "0 or more and less than 1"
    assert expected(above=0, maximum=1) == "more than 0 and at most 1"
    assert expected(minimum=1, also=-1) == "-1, or 1 or more"
    assert expected(minimum=0, maximum=1) == "0 to 1"
    assert expected() == ""
