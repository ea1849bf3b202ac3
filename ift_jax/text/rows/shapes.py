"""The shapes of rows, and recognizing them by their fields."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

from ift_jax.errors import UserError, did_you_mean
from ift_jax.text.rows import values


class Shape(NamedTuple):
    """A shape of rows.

    Attributes:
        name: Its name in `data.schema`.
        title: What a report calls rows of it.
        keys: The fields that it must have.
        optional: Further fields of its own.
        is_pair: Whether two of the fields are a question and its answer.
    """

    name: str
    title: str
    keys: tuple[str, ...]
    optional: tuple[str, ...] = ()
    is_pair: bool = False

    def is_pair_of_texts(self, fields: Mapping[str, Any]) -> bool:
        """Whether a row is a question and its answer, neither of them a list of messages."""
        texts = (fields.get(key) for key in self.keys)
        return self.is_pair and not any(isinstance(text, list | tuple) for text in texts)


_MESSAGES = "chat messages"
PREFERENCE = "preference"
# In the order in which they are looked for; a plain text comes last, because a column of that name
# often stands beside what it was made of, as pairs may stand beside `messages` (UltraFeedback).
SHAPES = (
    Shape("messages", _MESSAGES, ("messages",)),
    Shape("conversations", "ShareGPT conversations", ("conversations",)),
    Shape("conversation", _MESSAGES, ("conversation",)),
    Shape("prompt_completion", "prompts and completions", ("prompt", "completion"), (), True),
    Shape(
        "instruction", "instructions (Alpaca's layout)", ("instruction", "output"), ("input",), True
    ),
    Shape("inputs_targets", "inputs and targets", ("inputs", "targets"), (), True),
    Shape("text", "plain texts, of which every token is trained", ("text",)),
    Shape(PREFERENCE, "pairs of a chosen and a rejected answer", ("chosen", "rejected")),
)
BY_NAME = {shape.name: shape for shape in SHAPES}


def recognize(
    fields: Mapping[str, Any], place: str, schema: str = "auto", *, prompt_only: bool = False
) -> Shape:
    """Return the shape of a row.

    Args:
        fields: The row.
        place: Its place, for errors.
        schema: `data.schema`.
        prompt_only: Whether the row is to be answered, so that its answer may be missing.

    Raises:
        UserError: The row has no known shape, or two.
    """
    if schema != "auto":
        return BY_NAME[schema]
    fitting = _fitting(tuple(fields), prompt_only)
    if len(fitting) > 1:
        names = " and ".join(repr(shape.name) for shape in fitting)
        raise UserError(f"{place}: fits {names}; set data.schema to the one that is meant")
    if not fitting:
        for shape in SHAPES:
            absent = [key for key in shape.keys if key not in fields]
            if len(absent) < len(shape.keys):
                raise missing(absent[0], fields, place)
        expected = "; ".join(", ".join(map(repr, shape.keys)) for shape in SHAPES)
        raise UserError(
            f"{place}: cannot tell what the row is from its fields: {values.listed(fields)};"
            f" expected one of these sets: {expected}{_nearest(fields)}"
        )
    return fitting[0]


@functools.lru_cache(maxsize=256)  # Nearly all rows of a file have the same fields.
def _fitting(names: tuple[str, ...], prompt_only: bool) -> tuple[Shape, ...]:
    """Return the shapes of a row with fields of these names."""
    fitting = [shape for shape in SHAPES if all(key in names for key in shape.keys)]
    if prompt_only and not fitting:
        fitting = [shape for shape in SHAPES if shape.keys[0] in names]
    for last in (PREFERENCE, "text"):
        fitting = [shape for shape in fitting if shape.name != last] or fitting
    return tuple(fitting)


def _nearest(fields: Mapping[str, Any]) -> str:
    """Return which field may be meant by one that is given, as the end of a message."""
    known = [key for shape in SHAPES for key in shape.keys]
    return next((hint for name in fields if (hint := did_you_mean(name, known))), "")


def missing(name: str, fields: Mapping[str, Any], place: str) -> UserError:
    """Return the error about a field that a row lacks."""
    there = values.listed(fields)
    hint = did_you_mean(name, fields)
    return UserError(f"{place}: field {name!r} is missing{hint}; found {there}")
