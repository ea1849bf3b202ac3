"""Fields that are read only under some values of other fields, and their check.

A field that nothing reads is a wish that a run would silently ignore: a `decay_ratio` under a
schedule without a decay, say. Where a section has few such fields, they are checked beside it:
those of `lora`, of `preference`, and of the two blocks of an encoder-decoder.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

from ift_jax.config.fields import shown
from ift_jax.config.schema import Config
from ift_jax.errors import UserError


class _Reader(NamedTuple):
    """A field that decides whether others are read.

    Attributes:
        name: Its dotted name, such as "optimizer.schedule".
        reads: Whether the others are read under a value of it.
        expected: Such values as a phrase, such as "above 0".
    """

    name: str
    reads: Callable[[Any], bool]
    expected: str


class _Rule(NamedTuple):
    """Fields of one section, and what decides whether they are read: any of the readers does."""

    fields: tuple[str, ...]
    readers: tuple[_Reader, ...]


def _one_of(name: str, *values: str) -> _Reader:
    *others, last = map(repr, values)
    expected = f"{', '.join(others)} or {last}" if others else last
    return _Reader(name, lambda value: value in values, expected)


def _set(name: str, expected: str = "above 0") -> _Reader:
    return _Reader(name, bool, expected)


def _unset(name: str) -> _Reader:
    return _Reader(name, lambda value: not value, "0")


_DECAYING = _one_of("optimizer.schedule", "linear", "cosine", "wsd")
_WSD = _one_of("optimizer.schedule", "wsd")
_DECODER = _Reader(
    "model.architecture",
    lambda value: value == "decoder",
    "'decoder' (an encoder-decoder has data.inputs_length and data.targets_length)",
)
_SCALED_ROPE = _Reader("model.rope_scaling", lambda value: value != "none", "other than 'none'")

_RULES = (
    _Rule(("optimizer.warmup_ratio",), (_unset("optimizer.warmup_steps"),)),
    _Rule(("optimizer.final_ratio",), (_DECAYING,)),
    _Rule(("optimizer.decay_steps", "optimizer.decay_ratio", "optimizer.decay_shape"), (_WSD,)),
    _Rule(("optimizer.decay_ratio",), (_unset("optimizer.decay_steps"),)),
    _Rule(("optimizer.rsqrt_offset",), (_one_of("optimizer.schedule", "rsqrt"),)),
    _Rule(
        ("optimizer.b1", "optimizer.moment_dtype"),
        (_one_of("optimizer.name", "adamw", "lion", "sgd", "muon"),),
    ),
    _Rule(("optimizer.b2",), (_one_of("optimizer.name", "adamw", "lion", "muon"),)),
    _Rule(("optimizer.eps",), (_one_of("optimizer.name", "adamw", "muon"),)),
    _Rule(("optimizer.decay_norms_and_biases",), (_set("optimizer.weight_decay"),)),
    _Rule(("loss.constant",), (_one_of("loss.normalization", "constant"),)),
    _Rule(
        ("train.best_metric", "train.best_mode"),
        (_set("train.keep_best"), _set("train.early_stopping_patience")),
    ),
    _Rule(("train.eval_metrics_examples",), (_set("train.eval_metrics_every"),)),
    _Rule(
        ("evaluation.length_penalty", "evaluation.beam_rules"),
        (_Reader("evaluation.num_beams", lambda value: value > 1, "above 1"),),
    ),
    _Rule(
        ("data.licenses",),
        (_Reader("data.filters", lambda value: "license" in value, "with 'license'"),),
    ),
    _Rule(("data.heldout_split",), (_set("data.heldout_mixture", "the name of a mixture"),)),
    _Rule(("data.max_length",), (_DECODER,)),
    _Rule(("format.input_eos",), (_one_of("model.architecture", "encoder_decoder"),)),
    _Rule(("model.dropout_schedule",), (_set("model.dropout"),)),
)

# Fields of a model's shape. With `model.init_from` the model decides them, and a release may name
# numbers that nothing reads.
_SHAPE_RULES = (
    _Rule(("model.normalize_expert_weights",), (_set("model.n_experts"),)),
    _Rule(
        ("model.activation_limit", "model.activation_slope"),
        (_one_of("model.activation", "clamped_swish"),),
    ),
    _Rule(
        ("model.global_every", "model.layer_pattern", "model.rope_local_theta"),
        (_set("model.sliding_window"),),
    ),
    _Rule(("model.rope_scales_local",), (_set("model.sliding_window"),)),
    _Rule(("model.rope_scales_local", "model.rope_attention_factor"), (_SCALED_ROPE,)),
    _Rule(
        ("model.rope_factor",),
        (_one_of("model.rope_scaling", "linear", "llama3", "yarn", "proportional", "dynamic"),),
    ),
    _Rule(("model.rope_proportion",), (_one_of("model.rope_scaling", "proportional"),)),
    _Rule(
        ("model.rope_beta_fast", "model.rope_beta_slow", "model.rope_truncate"),
        (_one_of("model.rope_scaling", "yarn"),),
    ),
    _Rule(
        ("model.rope_low_freq_factor", "model.rope_high_freq_factor"),
        (_one_of("model.rope_scaling", "llama3"),),
    ),
    _Rule(
        ("model.rope_original_length",),
        (
            _one_of("model.rope_scaling", "llama3", "yarn", "longrope"),
            _set("model.query_beta"),
        ),
    ),
    _Rule(("model.double_d_ff_where_shared",), (_set("model.kv_shared_layers"),)),
    _Rule(("model.layer_input_rows",), (_set("model.layer_input_dim"),)),
    _Rule(
        (
            "model.linear_key_heads",
            "model.linear_value_heads",
            "model.linear_key_dim",
            "model.linear_value_dim",
            "model.linear_conv",
        ),
        (_Reader("model.linear_layers", lambda value: "L" in value, "with a layer 'L'"),),
    ),
)


def check_all_is_read(config: Config, among: Collection[str] | None = None) -> None:
    """Check that no field has a value of its own that nothing reads.

    Args:
        config: The config of a run. A field at its default is never refused.
        among: The dotted names of the fields to check; None: all.

    Raises:
        UserError: Names the first such field, its value, and what would read it.
    """
    for name, readers in _unread(config):
        if among is not None and name not in among:
            continue
        found = " and ".join(
            f"{reader.name} {shown(_value(config, reader.name))}" for reader in readers
        )
        cures = ", ".join(f"{reader.name} {reader.expected}" for reader in readers)
        raise UserError(
            f"config.{name}: {shown(_value(config, name))}, but nothing reads it with {found}; "
            f"expected {cures}, or the default {shown(_default(config, name))}"
        )


def without_switched_off(config: Config, overridden: Collection[str]) -> Config:
    """Return the config without what belongs to a choice of its file that an override replaced.

    An override of `optimizer.schedule`, for example, leaves nothing to read the file's
    `optimizer.final_ratio`, which is then at its default. A field that an override sets itself is
    kept, for `check_all_is_read` to refuse.

    Args:
        config: The config with its overrides applied.
        overridden: The dotted names of the fields that they set.
    """
    for name, readers in list(_unread(config)):
        if name not in overridden and any(reader.name in overridden for reader in readers):
            section, _, field = name.partition(".")
            values = {field: _default(config, name)}
            changed = dataclasses.replace(getattr(config, section), **values)
            config = dataclasses.replace(config, **{section: changed})
    return config


def is_read(config: Config, field: str) -> bool:
    """Return whether a run reads a field, by its dotted name, as far as other fields decide it."""
    rules = [rule for rule in _RULES + _SHAPE_RULES if field in rule.fields]
    return all(_reads(config, rule.readers) for rule in rules)


def _unread(config: Config) -> Iterator[tuple[str, Sequence[_Reader]]]:
    """Yield the names of fields that are set and not read, and what would read them."""
    for rule in _RULES if config.model.init_from else _RULES + _SHAPE_RULES:
        # The two architectures do not have all fields in common.
        readers = [reader for reader in rule.readers if _has(config, reader.name)]
        for name in rule.fields:
            if _has(config, name) and _value(config, name) != _default(config, name):
                if not _reads(config, readers):
                    yield name, readers


def _reads(config: Config, readers: Sequence[_Reader]) -> bool:
    return any(reader.reads(_value(config, reader.name)) for reader in readers)


def _has(config: Config, name: str) -> bool:
    section, _, field = name.partition(".")
    return hasattr(getattr(config, section), field)


def _value(config: Config, name: str) -> Any:
    section, _, field = name.partition(".")
    return getattr(getattr(config, section), field)


def _default(config: Config, name: str) -> Any:
    section, _, field = name.partition(".")
    fields = dataclasses.fields(getattr(config, section))
    return next(each.default for each in fields if each.name == field)
