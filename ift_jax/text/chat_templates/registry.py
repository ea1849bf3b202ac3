"""Chat templates by name: ours, a model's own, a file, or a text."""

import importlib.resources
import json
import tomllib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ift_jax.config.schema import FormatConfig
from ift_jax.errors import UserError, did_you_mean
from ift_jax.io.files import read_template_file
from ift_jax.text.chat_templates.sandbox import Template, compile_template
from ift_jax.text.tokenizers.base import Tokenizer

_FOLDER = importlib.resources.files(__package__)
# The names, and the strings that are one control token each in a tokenizer trained for it.
_CONTROLS = tomllib.loads((_FOLDER / "controls.toml").read_text("utf-8"))
NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {name: tuple(strings) for name, strings in _CONTROLS.items()}
)
_GIVEN = ("messages", "tools", "documents", "add_generation_prompt")


def resolve_template(fmt: FormatConfig, tokenizer: Tokenizer) -> Template:
    """The template that a config asks for.

    An option becomes a variable of the template unless whoever renders it gives another value.

    Raises:
        UserError: names what is wrong: no such template or file, an option, the text itself.
    """
    name, options = fmt.template, _options(fmt)
    if name == "qwen3_nothink":
        options = {"enable_thinking": False} | options
    if name == "model":
        source = tokenizer.chat_template
        if not source:
            raise UserError(
                "format.template = 'model': the tokenizer's folder holds no chat template;"
                f" expected one there, or one of {', '.join(NAMES)}"
            )
    elif "{%" in name or "{{" in name:
        name, source = "(given as text)", name
    elif name.endswith(".jinja"):
        source = read_template_file(name)
    else:
        _check_name(name)
        source = (_FOLDER / f"{name.removesuffix('_nothink')}.jinja").read_text("utf-8")
    given = "".join(
        f"{{%- if {key} is not defined %}}{{%- set {key} = {_literal(value)} %}}{{%- endif %}}"
        for key, value in sorted(options.items())
    )
    return compile_template(given + "{{- '' }}" * bool(given) + source, name)


def _check_name(name: str) -> None:
    if name not in NAMES:
        raise UserError(
            f"format.template: no template {name!r}{did_you_mean(name, NAMES)}; expected one of"
            f" {', '.join(NAMES)}, 'model', a .jinja file, or the text of a template"
        )


def controls(template: str) -> tuple[str, ...]:
    """The control strings that a tokenizer that is trained for a template is to have.

    Raises:
        UserError: no template has that name.
    """
    if template != "model" and not template.endswith(".jinja") and "{" not in template:
        _check_name(template)
    return NAMES.get(template, ())


def _options(fmt: FormatConfig) -> dict[str, Any]:
    options = {}
    for item in fmt.template_options:
        key, _, value = item.partition("=")
        key = key.strip()
        try:
            options[key] = json.loads(value)
        except ValueError:
            key = ""
        if not key.isidentifier() or key.startswith("_") or key in _GIVEN:
            raise UserError(
                f"format.template_options: {item!r}: expected name=value with the value in JSON,"
                " such as 'enable_thinking=false' or 'date_string=\"26 Jul 2024\"'"
            )
    return options


def _literal(value: Any) -> str:
    """A JSON value as Jinja writes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)}: {_literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return "none" if value is None else json.dumps(value, ensure_ascii=False)
