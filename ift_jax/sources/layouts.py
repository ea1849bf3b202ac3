"""The layouts of records in files of rows, known by their fields; needs neither SeqIO nor JAX."""

from collections.abc import Mapping
from typing import Any

from ift_jax.errors import UserError, did_you_mean
from ift_jax.io.json_reader import json_kind

# Layouts are recognized by the fields of a record, in this order.
LAYOUTS: Mapping[str, tuple[str, ...]] = {
    "chat": ("messages",),
    "text": ("inputs", "targets"),
    "completion": ("prompt", "completion"),
    "alpaca": ("instruction", "output"),
}
# The field of each layout that is answered, which decides where a record has no answer yet.
_PROMPT_FIELDS = tuple(fields[0] for fields in LAYOUTS.values())


def alpaca_inputs(instruction: str, given: str) -> str:
    """Return the input of an Alpaca record, whose field `input` may be empty."""
    return f"{instruction}\n\n{given}" if given else instruction


def prompt_fields(fields: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Return a record of any layout, with or without its answer, as `messages` or `inputs`.

    Args:
        fields: The record.
        where: Its place, such as "file:line".

    Raises:
        UserError: The record is of no layout, or a text of it is none.
    """
    name = next((name for name in _PROMPT_FIELDS if name in fields), None)
    if name in ("messages", "inputs"):
        return fields
    if name is None:
        expected = ", ".join(map(repr, _PROMPT_FIELDS))
        near = next((near for key in fields if (near := did_you_mean(key, _PROMPT_FIELDS))), "")
        found = ", ".join(map(repr, fields)) or "none"
        raise UserError(f"{where}: expected one of the fields {expected}; found {found}{near}")
    inputs = _text(fields, name, where)
    if name == "instruction" and "input" in fields:
        inputs = alpaca_inputs(inputs, _text(fields, "input", where))
    return {**fields, "inputs": inputs}


def _text(fields: Mapping[str, Any], name: str, where: str) -> str:
    value = fields[name]
    if not isinstance(value, str):
        raise UserError(f"{where}: field {name!r} is {json_kind(value)}; expected a string")
    return value
