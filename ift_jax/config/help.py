"""The text of `--help-config`: every field with its type, default, allowed values and help."""

import dataclasses
import textwrap
from typing import Any

from ift_jax.config.fields import rules_of
from ift_jax.config.schema import Config, DecoderConfig, EncoderDecoderConfig

_WIDTH = 100


def help_lines() -> list[str]:
    """The lines of the help, grouped by section."""
    config = Config()
    lines = [
        "Every field of a config. Set one in a config file (config.train.steps = 100) or on the",
        "command line (--config.train.steps=100).",
        "",
        "config.stages is a list of runs that follow one another, each from the last one's",
        'checkpoint: [{"name": "mid", "train": {"steps": 100}}, {"name": "sft", ...}]. A stage has',
        "the fields in which it differs. --config.train.steps=100 sets a field in all stages,",
        "--config.stages.sft.train.steps=100 in one.",
        "",
    ]
    for field in dataclasses.fields(config):
        section = getattr(config, field.name)
        if field.name == "model":
            for model in (DecoderConfig(), EncoderDecoderConfig()):
                lines += _section_lines("model", model, f" (architecture {model.architecture!r})")
        elif dataclasses.is_dataclass(section):
            lines += _section_lines(field.name, section)
        else:
            lines += [*_field_lines(field, "", section), ""]
    return lines[:-1]


def _section_lines(name: str, section: Any, note: str = "") -> list[str]:
    title = f"{name}{note}: {type(section).__doc__}"
    lines = _wrapped(title, "", "  ")
    for field in dataclasses.fields(section):
        lines += _field_lines(field, f"{name}.", getattr(section, field.name))
    return [*lines, ""]


def _field_lines(field: "dataclasses.Field[Any]", prefix: str, default: Any) -> list[str]:
    rules = rules_of(field)
    kind = str(field.type) if isinstance(default, tuple) else type(default).__name__
    head = f"  {prefix}{field.name}: {kind} = {default!r}"
    if expected := rules.expected():
        head += f"  ({expected})"
    indent = " " * 6
    return [
        *_wrapped(head, "", indent),
        *_wrapped(rules.help, indent, indent),
    ]


def _wrapped(text: str, first: str, others: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=first, subsequent_indent=others, break_on_hyphens=False
    )
