"""The values in a row: texts, lists and objects, each checked, and named by its place in errors."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ift_jax.errors import UserError
from ift_jax.io.json_reader import parse_json


def text(value: Any, place: str) -> str:
    """Return a text that is given as such or as UTF-8 bytes."""
    try:
        if isinstance(value, bytes):
            return value.decode("utf-8")
        if isinstance(value, str):
            if not value.isascii():
                value.encode("utf-8")  # Half of a surrogate pair, "\ud83d" in JSON, is no text.
            return str(value)
    except UnicodeError as error:
        raise UserError(f"{place}: expected valid UTF-8 text ({error})") from error
    raise UserError(f"{place}: expected a text, {found(value)}")


def misspelled(place: str, meant: str) -> UserError:
    """Return the error about a field, named by its place, that is almost called what is read."""
    return UserError(
        f"{place}: did you mean {meant!r}? Otherwise name the field in data.ignore_fields"
    )


def is_utf8(text: str) -> bool:
    """Whether a text can be written as UTF-8, which half of a surrogate pair cannot."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def list_of(value: Any, place: str, expected: str) -> list[Any]:
    """Return a list that is given as a list, an array, or their JSON.

    Args:
        value: The value.
        place: Its place, for errors.
        expected: What it should be, such as "a list of texts".
    """
    value = parsed(value, place, expected)
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise UserError(f"{place}: expected {expected}, {found(value)}")
    return list(value)


def object_of(
    value: Any, place: str, expected: str, *, keep_nulls: bool = False
) -> Mapping[str, Any]:
    """Return an object that is given as such or as its JSON; see `list_of`.

    Arrow fills in nulls where the objects of a column differ, so nulls are left out. Those in a
    JSON text were written by somebody: they stay, as do all with `keep_nulls`.
    """
    is_text = isinstance(value, str | bytes)
    value = parsed(value, place, expected)
    if not isinstance(value, Mapping):
        raise UserError(f"{place}: expected {expected}, {found(value)}")
    if is_text or keep_nulls:
        return value
    without_nulls: Mapping[str, Any] = plain(value, place)
    return without_nulls


def parsed(value: Any, place: str, expected: str) -> Any:
    """Return the value of a JSON text; any other value as it is."""
    if not isinstance(value, str | bytes):
        return value
    return parse_json(text(value, place), place, expected=f"{expected} or its JSON", strict=True)


def plain(value: Any, place: str) -> Any:
    """Return nested values without the nulls that Arrow fills in where objects differ.

    Raises:
        UserError: A number is infinite or not a number: no JSON could hold it.
    """
    if isinstance(value, Mapping):
        return {key: plain(item, place) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item, place) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{place}: expected finite numbers, found {value}")
    return value


def has_content(value: Any) -> bool:
    """Whether an optional field has a value that is neither null nor empty."""
    if value is None:
        return False
    return len(value) > 0 if hasattr(value, "__len__") else True


def listed(names: Iterable[str]) -> str:
    """Return names in quotes, for an error."""
    return ", ".join(map(repr, names)) or "none"


def found(value: Any) -> str:
    """Describe what was found in place of what was expected."""
    if value is None:
        return "found null"
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "a boolean"}
    other = "a number" if isinstance(value, int | float) else type(value).__name__
    return f"found {kinds.get(type(value), other)} ({str(value)[:40]!r})"
