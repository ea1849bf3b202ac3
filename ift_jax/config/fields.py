"""How a config field states its type, default, help text, choices and bounds in one place."""

import dataclasses
import math
import numbers
import re
import typing
from typing import Any, TypeVar

from ift_jax.errors import UserError

T = TypeVar("T")
_KEY = "ift_jax"  # The rules' key in the metadata of a dataclass field.
LARGEST = 2**31 - 1  # Sizes, steps and seeds become int32 on the way to a device.
_SHOWN = 80  # Characters of a value in a message.
_TYPES = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}
_TUPLES = {
    int: "a tuple of whole numbers, such as (1, 2)",
    float: "a tuple of numbers, such as (1.0, 2.5)",
    str: "a tuple of texts, such as ('a',)",
}


@dataclasses.dataclass(frozen=True)
class Rules:
    """What a field may hold, and what `--help-config` says about it.

    The bounds of a tuple are those of its items.

    Attributes:
        help: Whole sentences for a user.
        choices: The allowed values. (): any value.
        above: The value must be greater than this.
        minimum: The value must be at least this.
        below: The value must be less than this.
        maximum: The value must be at most this.
        also: A number that is allowed besides, outside the bounds.
        regex: The value must be a regular expression.
        letters: The letters that the value may consist of.
    """

    help: str
    choices: tuple[str, ...] = ()
    above: float | None = None
    minimum: float | None = None
    below: float | None = None
    maximum: float | None = None
    also: float | None = None
    regex: bool = False
    letters: str = ""

    def expected(self) -> str:
        """The allowed values as a phrase, such as "0 to 1"; "" if every value is allowed."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.regex:
            return "a regular expression"
        if self.letters:
            return f"a text of the letters {' and '.join(self.letters)}"
        bounds = self._bounds()
        return f"{self.also:g}, or {bounds}" if self.also is not None else bounds

    def _bounds(self) -> str:
        if self.above == 0 and self.below is None and self.maximum is None:
            return "a positive number"
        if self.minimum is not None and self.maximum is not None:
            return f"{self.minimum:g} to {self.maximum:g}"
        bounds = [
            (self.above, "more than {:g}"),
            (self.minimum, "{:g} or more"),
            (self.below, "less than {:g}"),
            (self.maximum, "at most {:g}"),
        ]
        return " and ".join(text.format(bound) for bound, text in bounds if bound is not None)

    def check(self, where: str, value: Any) -> None:
        """Checks one value.

        Args:
            where: The field's full name, such as "config.model.dropout", for the message.
            value: A value of the field's type.

        Raises:
            UserError: The value is not allowed.
        """
        for item in value if isinstance(value, tuple) else (value,):
            if self.choices and item not in self.choices:
                raise UserError(f"{where}: expected {self.expected()}; got {shown(item)}")
            if isinstance(item, int | float) and not isinstance(item, bool):
                self._check_number(where, item)
        if self.letters and not set(value) <= set(self.letters):
            raise UserError(f"{where}: expected {self.expected()}; got {shown(value)}")
        if self.regex:
            try:
                re.compile(value)
            except (re.error, RecursionError, OverflowError) as error:
                raise UserError(f"{where}: not a regular expression: {error}") from error

    def _check_number(self, where: str, value: float) -> None:
        if isinstance(value, int):
            if value > LARGEST:
                raise UserError(f"{where}: expected at most {LARGEST:,}; got {shown(value)}")
        elif not math.isfinite(value):
            raise UserError(f"{where}: expected a finite number; got {value}")
        if value == self.also:
            return
        outside = (
            (self.above is not None and value <= self.above)
            or (self.minimum is not None and value < self.minimum)
            or (self.below is not None and value >= self.below)
            or (self.maximum is not None and value > self.maximum)
        )
        if outside:
            raise UserError(f"{where}: expected {self.expected()}; got {shown(value)}")


def field(
    default: T,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    above: float | None = None,
    minimum: float | None = None,
    below: float | None = None,
    maximum: float | None = None,
    also: float | None = None,
    regex: bool = False,
    letters: str = "",
) -> T:
    """A dataclass field with its rules; see `Rules` for the arguments."""
    rules = Rules(help, choices, above, minimum, below, maximum, also, regex, letters)
    return dataclasses.field(default=default, metadata={_KEY: rules})


def rules_of(dataclass_field: "dataclasses.Field[Any]") -> Rules:
    """The rules of a field that `field` made."""
    return dataclass_field.metadata[_KEY]


def expected_type(dataclass_field: "dataclasses.Field[Any]") -> str:
    """What a field holds, as a phrase for a user: "a whole number"."""
    kind = typing.get_args(dataclass_field.type)
    names: dict[Any, str] = _TUPLES if kind else _TYPES
    return names[kind[0] if kind else dataclass_field.type]


def of_type(where: str, dataclass_field: "dataclasses.Field[Any]", value: Any) -> Any:
    """Returns a value as the type of a field: NumPy's numbers as Python's, a list as a tuple.

    Raises:
        UserError: The value, or an item of a tuple, has another type.
    """
    mistake = UserError(f"{where}: expected {expected_type(dataclass_field)}; got {shown(value)}")
    items = typing.get_args(dataclass_field.type)
    if not items:
        return _of_type(dataclass_field.type, value, mistake)
    if not isinstance(value, list | tuple):
        raise mistake
    return tuple(_of_type(items[0], item, mistake) for item in value)


def shown(value: Any) -> str:
    """Returns a value as a short text for a message; Python refuses to print very long numbers."""
    try:
        text = repr(value)
    except ValueError:
        return "a number of more than 4,300 digits"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _of_type(kind: Any, value: Any, mistake: UserError) -> Any:
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return kind(value)
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if kind is int and is_number and isinstance(value, numbers.Integral):
        return int(value)
    if kind is float and is_number:
        try:
            return float(value)
        except OverflowError:  # A whole number of more than 308 digits.
            raise mistake from None
    raise mistake
