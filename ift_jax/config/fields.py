"""How a config field states its default, help text, choices and bounds in one place."""

import dataclasses
import math
import re
from typing import Any, TypeVar

from ift_jax.errors import UserError

T = TypeVar("T")
_KEY = "ift_jax"  # The rules' key in the metadata of a dataclass field.


@dataclasses.dataclass(frozen=True)
class Rules:
    """What a field may hold, and what `--help-config` says about it.

    Attributes:
        help: Whole sentences for a user.
        choices: The allowed values; a tuple's items must each be one of them. (): any value.
        above: The value must be greater than this.
        minimum: The value must be at least this.
        maximum: The value must be at most this.
        regex: The value must be a regular expression.
    """

    help: str
    choices: tuple[str, ...] = ()
    above: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    regex: bool = False

    def expected(self) -> str:
        """The allowed values as a phrase, such as "0 to 1"; "" if every value is allowed."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.above is not None:
            return "a positive number" if self.above == 0 else f"more than {self.above:g}"
        if self.minimum is not None and self.maximum is not None:
            return f"{self.minimum:g} to {self.maximum:g}"
        if self.minimum is not None:
            return f"{self.minimum:g} or more"
        if self.maximum is not None:
            return f"at most {self.maximum:g}"
        return "a regular expression" if self.regex else ""

    def check(self, where: str, value: Any) -> None:
        """Checks one value.

        Args:
            where: The field's full name, such as "config.model.dropout", for the message.
            value: A value of the field's type.

        Raises:
            UserError: The value is not allowed.
        """
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{where}: expected a finite number; got {value}")
        items = value if isinstance(value, tuple) else (value,)
        for item in items:
            if self.choices and item not in self.choices:
                raise UserError(f"{where}: expected {self.expected()}; got {item!r}")
        too_small = (self.above is not None and value <= self.above) or (
            self.minimum is not None and value < self.minimum
        )
        if too_small or (self.maximum is not None and value > self.maximum):
            raise UserError(f"{where}: expected {self.expected()}; got {value}")
        if self.regex:
            try:
                re.compile(value)
            except re.error as error:
                raise UserError(f"{where}: not a regular expression: {error}") from error


def field(
    default: T,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    above: float | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    regex: bool = False,
) -> T:
    """A dataclass field with its rules; see `Rules` for the arguments."""
    rules = Rules(help, choices, above, minimum, maximum, regex)
    return dataclasses.field(default=default, metadata={_KEY: rules})


def rules_of(dataclass_field: "dataclasses.Field[Any]") -> Rules:
    """The rules of a field that `field` made."""
    return dataclass_field.metadata[_KEY]
