"""Today's date in a chat template: the same on every day, in training as in use.

A template asks for the date by `strftime_now(format)`. `transformers` answers by the clock, so that
a model would be trained on the day when its data was prepared, and be asked on another. Here it
gets the date that `format.template_options` sets, or none.
"""

import datetime
from collections.abc import Mapping
from typing import Any

import jinja2
from jinja2 import nodes

from ift_jax.errors import UserError
from ift_jax.text.chat_templates.sandbox import Sandbox

OPTION = "date"
_FUNCTION = "strftime_now"


def fixed_date(source: str, options: Mapping[str, Any]) -> str:
    """Return Jinja that defines `strftime_now` for a template; empty if it needs no date.

    What is written is part of the template, so an exported model has the same date everywhere.

    Args:
        source: The Jinja text of the template.
        options: Its options, which may have a `date` such as "2026-01-31".

    Raises:
        UserError: The date is none, or the template computes the format that it asks for.
    """
    if OPTION not in options or not asks_for_date(source):
        return ""
    try:
        date = datetime.date.fromisoformat(options[OPTION])
    except (TypeError, ValueError) as error:
        raise UserError(
            f"format.template_options: date={options[OPTION]!r}: expected a date such as"
            " 'date=\"2026-01-31\"'"
        ) from error
    texts = ", ".join(f"{_quoted(f)}: {_quoted(date.strftime(f))}" for f in _formats(source))
    return f"{{%- macro {_FUNCTION}(format) %}}{{{{- {{{texts}}}[format] }}}}{{%- endmacro %}}"


def asks_for_date(source: str) -> bool:
    """Return whether the Jinja text of a template may ask for today's date."""
    return _FUNCTION in source


def _formats(source: str) -> list[str]:
    """Return the formats that a template asks for; their order is that of the text."""
    formats: dict[str, None] = {}
    try:
        tree = Sandbox().parse(source)
    except jinja2.TemplateError:
        return []  # Compiling it raises the error.
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name == _FUNCTION:
            if len(call.args) != 1 or not isinstance(call.args[0], nodes.Const):
                raise UserError(
                    f"format.template_options: date: the template's line {call.lineno} computes the"
                    " format of the date; expected a text such as '%d %b %Y'"
                )
            formats[str(call.args[0].value)] = None
    return list(formats)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"
