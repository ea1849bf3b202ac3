"""Typed reading of what others wrote: every wrong type is one line with file, field and value.

The files of a Hugging Face folder and of GGUF are read through it. A check names the kinds that a
field may have, rather than trusting the file and failing later, far from it.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ift_jax.errors import UserError

_MOST_SHOWN = 60  # Characters of a value in a message.
REQUIRED: Any = object()  # The default of a field that must be there.


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of JSON values.

    Attributes:
        expected: What messages call it: "a whole number".
        accepts: Whether a value is of this kind.
    """

    expected: str
    accepts: Callable[[Any], bool]

    def __or__(self, other: "Kind") -> "Kind":
        """Return the kind of values that are of either kind."""
        return Kind(
            f"{self.expected} or {other.expected}",
            lambda value: self.accepts(value) or other.accepts(value),
        )


def _is_finite_number(value: Any) -> bool:
    if type(value) is int:
        return abs(value) < 1 << 1000  # Larger ones are no floats.
    return type(value) is float and math.isfinite(value)


def _is_text(value: Any) -> bool:
    """Whether a value is a string that can be written: JSON can spell half a surrogate pair."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


TEXT = Kind("a string", _is_text)
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
NULL = Kind("null", lambda value: value is None)
OBJECT = Kind("an object", lambda value: isinstance(value, dict))
NUMBER = Kind("a finite number", _is_finite_number)
POSITIVE = Kind("a number above 0", lambda value: _is_finite_number(value) and value > 0)
NOT_NEGATIVE = Kind("a number of at least 0", lambda value: _is_finite_number(value) and value >= 0)
ANYTHING = Kind("anything", lambda value: True)


def whole(minimum: int | None = None, maximum: int | None = None) -> Kind:
    """Return the kind of whole numbers within bounds; true, false and 8.0 are none."""
    bounds = ""
    if minimum is not None and maximum is not None:
        bounds = f" from {minimum:,} to {maximum:,}"
    elif minimum is not None:
        bounds = f" of at least {minimum:,}"

    def accepts(value: Any) -> bool:
        is_whole = type(value) is int  # A bool is an int too.
        return (
            is_whole
            and (minimum is None or value >= minimum)
            and (maximum is None or value <= maximum)
        )

    return Kind(f"a whole number{bounds}", accepts)


def list_of(kind: Kind) -> Kind:
    """Return the kind of lists whose items are all of one kind."""
    return Kind(
        f"a list of which each item is {kind.expected}",
        lambda value: isinstance(value, list) and all(map(kind.accepts, value)),
    )


def object_of(kind: Kind) -> Kind:
    """Return the kind of objects whose values are all of one kind."""
    return Kind(
        f"an object of which each value is {kind.expected}",
        lambda value: isinstance(value, dict) and all(map(kind.accepts, value.values())),
    )


def one_of(allowed: Collection[Any]) -> Kind:
    """Return the kind of values that equal one of those given, in type as well."""
    names = " or ".join(shown(value) for value in allowed)
    return Kind(
        names,
        lambda value: any(type(value) is type(each) and value == each for each in allowed),
    )


TEXTS = list_of(TEXT)
TOKEN_ID = whole(0, 2**31 - 1)
TOKEN_IDS = TOKEN_ID | list_of(TOKEN_ID)


def shown(value: Any) -> str:
    """Return a value as messages show it: as JSON spells it, in one short line."""
    spelled = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return spelled[value]
    if isinstance(value, int) and abs(value) >= 10**_MOST_SHOWN:
        return f"a number of more than {_MOST_SHOWN} digits"
    # A part of a long text or list is enough, and printing all of it may take long.
    if isinstance(value, str):
        value = value[: _MOST_SHOWN + 1]
    elif isinstance(value, list):
        value = value[:_MOST_SHOWN]
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 3] + "..."


class TypedFields:
    """The fields of one object in somebody else's file.

    Attributes:
        raw: The fields as the file has them.
        where: What messages call the object.
    """

    def __init__(self, raw: Mapping[str, Any], where: str):
        self.raw = raw
        self.where = where

    def get(self, name: str, kind: Kind, default: Any = REQUIRED) -> Any:
        """Return the value of a field.

        Args:
            name: The field.
            kind: What its value must be.
            default: The value of an absent field.

        Raises:
            UserError: The field is absent and has no default, or its value is of another kind.
        """
        if name not in self.raw:
            if default is REQUIRED:
                raise UserError(f"{self.where}: no field {name!r}; expected {kind.expected}")
            return default
        return self.check(name, self.raw[name], kind)

    def check(self, name: str, value: Any, kind: Kind) -> Any:
        """Return a value; raise a UserError if it is not of a kind."""
        if not kind.accepts(value):
            raise self.refusal(name, value, kind.expected)
        return value

    def refusal(self, name: str, value: Any, expected: str) -> UserError:
        """Return the error for a value that is not supported; the caller raises it."""
        return UserError(f"{self.where}: {name} is {shown(value)}; expected {expected}")
