"""Finding a chat template: one of ours by name, a model's own, a file, or a text."""

import importlib.resources
import json
import tomllib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from jinja2 import nodes

from ift_jax.config.schema import FormatConfig
from ift_jax.errors import UserError, did_you_mean
from ift_jax.io.files import read_template_file
from ift_jax.io.json_reader import parse_json
from ift_jax.text.chat_templates.dates import OPTION, asks_for_date, fixed_date
from ift_jax.text.chat_templates.sandbox import Sandbox
from ift_jax.text.chat_templates.template import Template, compile_template
from ift_jax.text.tokenizers.base import Tokenizer

_FOLDER = importlib.resources.files(__package__)
_CONTROLS = tomllib.loads((_FOLDER / "controls.toml").read_text("utf-8"))
# A name for a template with options set -> the template, and its options.
_VARIANTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    name: (options.pop("template"), options) for name, options in _CONTROLS.pop("variants").items()
}
# The named templates, and the strings that a tokenizer trained for each has as control tokens.
NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {name: tuple(strings) for name, strings in _CONTROLS.items()}
    | {name: tuple(_CONTROLS[template]) for name, (template, _) in _VARIANTS.items()}
)
_RESERVED = ("messages", "tools", "documents", "add_generation_prompt")


def resolve_template(fmt: FormatConfig, tokenizer: Tokenizer) -> Template:
    """Find and compile the template of a config, with its options set.

    Args:
        fmt: `template` names the template. Each of `template_options` becomes a variable of it,
            unless a variable of the same name is given on rendering.
        tokenizer: The source of the template "model".

    Raises:
        UserError: There is no such template or file, or an option or the template is wrong.
    """
    source, defaults = _source(fmt, tokenizer)
    options = {**defaults, **_options(fmt)}
    bos = "{{- bos_token }}" if _lacks_bos(fmt, tokenizer, source) else ""
    front = _set_options(options) + fixed_date(source, options) + bos
    name = "(given as text)" if _is_text(fmt.template) else fmt.template
    return compile_template(front + source, name, frozenset(options))


def unread_options(fmt: FormatConfig, tokenizer: Tokenizer) -> str:
    """Say which of a config's `template_options` its template does not read; "" if it reads all.

    The errors are those of `resolve_template`.
    """
    source, _ = _source(fmt, tokenizer)
    read = {node.name for node in Sandbox().parse(source).find_all(nodes.Name)}
    if asks_for_date(source):
        read.add(OPTION)
    for name in _options(fmt):
        if name not in read:
            hint = did_you_mean(name, sorted(read))
            return f"format.template_options: the template reads no variable {name!r}{hint}"
    return ""


def _source(fmt: FormatConfig, tokenizer: Tokenizer) -> tuple[str, Mapping[str, Any]]:
    """Return the Jinja text of a config's template, and the options that its name stands for."""
    name = fmt.template
    if name == "model":
        source = tokenizer.chat_template
        if not source:
            raise UserError(
                "format.template = 'model': the tokenizer's folder holds no chat template;"
                f" expected one there, or one of {', '.join(NAMES)}"
            )
        return source, {}
    if _is_text(name):
        return name, {}
    if name.endswith(".jinja"):
        return read_template_file(name), {}
    _check_name(name)
    template, defaults = _VARIANTS.get(name, (name, {}))
    return (_FOLDER / f"{template}.jinja").read_text("utf-8"), defaults


def _is_text(template: str) -> bool:
    return "{%" in template or "{{" in template


def _lacks_bos(fmt: FormatConfig, tokenizer: Tokenizer, source: str) -> bool:
    """Whether BOS is to be put before what a template writes, as it writes none itself.

    A base model that was trained with BOS before every text is at a loss without it: Gemma's
    perplexity was reported as 3.5 with it, and as 10^9 without.

    Raises:
        UserError: BOS is asked for, and the tokenizer has none.
    """
    bos = tokenizer.special_tokens_map.get("bos_token")
    if bos is None:
        if fmt.add_bos == "always":
            raise UserError("format.add_bos = 'always': the tokenizer has no BOS token")
        return False
    if "bos_token" in source or bos in source:
        return False
    if fmt.add_bos == "auto":
        return tokenizer.adds_bos and fmt.template != "model"
    return fmt.add_bos == "always"


def controls(template: str) -> tuple[str, ...]:
    """Return the control strings that a tokenizer trained for a template needs.

    Args:
        template: The template of a config; only named templates have control strings.

    Raises:
        UserError: No template has that name.
    """
    if template != "model" and not template.endswith(".jinja") and "{" not in template:
        _check_name(template)
    return NAMES.get(template, ())


def _check_name(name: str) -> None:
    if name not in NAMES:
        raise UserError(
            f"format.template: no template {name!r}{did_you_mean(name, NAMES)}; expected one of"
            f" {', '.join(NAMES)}, 'model', a .jinja file, or the text of a template"
        )


def _options(fmt: FormatConfig) -> dict[str, Any]:
    """Parse the options of a template, which are written as name=JSON."""
    options = {}
    for item in fmt.template_options:
        name, _, value = item.partition("=")
        name = name.strip()
        try:
            options[name] = parse_json(value, item, strict=True)
        except UserError:
            name = ""
        if not name.isidentifier() or name.startswith("_") or name in _RESERVED:
            raise UserError(
                f"format.template_options: {item!r}: expected name=value with the value in JSON,"
                " such as 'enable_thinking=false' or 'date_string=\"26 Jul 2024\"'"
            )
    return options


def _set_options(options: Mapping[str, Any]) -> str:
    """Return Jinja that sets each option unless it is set already; empty without options."""
    if not options:
        return ""
    statements = [
        f"{{%- if {name} is not defined %}}{{%- set {name} = {_literal(value)} %}}{{%- endif %}}"
        for name, value in sorted(options.items())
    ]
    # The empty output keeps the last tag from taking the template's own first newline.
    return "".join(statements) + "{{- '' }}"


def _literal(value: Any) -> str:
    """Write a JSON value as a Jinja literal."""
    if isinstance(value, dict):
        items = [f"{json.dumps(key)}: {_literal(item)}" for key, item in value.items()]
        return "{" + ", ".join(items) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return "none" if value is None else json.dumps(value, ensure_ascii=False)
