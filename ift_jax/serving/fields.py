"""The fields of a request's body: each is checked as it is read, and none is left unread.

A field that would change the answer and is not supported is refused by name. OpenAI's clients may
send null for anything, which is the default.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ift_jax.errors import UserError, did_you_mean
from ift_jax.io.json_reader import json_kind, parse_json
from ift_jax.serving.api_error import ApiError, invalid

# Fields that cannot change an answer.
_NO_EFFECT = ("metadata", "prompt_cache_key", "safety_identifier", "service_tier", "user")


def parse_body(content: bytes) -> dict[str, Any]:
    """Parse a body; raise an ApiError if it is no JSON object."""
    try:
        body = parse_json(content, "body", expected="a JSON object", strict=True)
    except UserError as error:
        raise ApiError(400, str(error), code="invalid_json") from None
    if not isinstance(body, dict):
        raise ApiError(400, f"body: expected a JSON object, found {json_kind(body)}")
    return body


class Fields:
    """Reads the fields of a body."""

    def __init__(self, body: Mapping[str, Any]):
        """Read nothing yet.

        Args:
            body: The JSON object.
        """
        self._body = body
        self._known: set[str] = set(_NO_EFFECT)

    def take(self, name: str, default: Any = None) -> Any:
        """Return a field as it is; the default if it is absent or null."""
        self._known.add(name)
        value = self._body.get(name)
        return default if value is None else value

    def whole(self, name: str, least: int, most: int, default: int | None = None) -> int | None:
        """Return a whole number within bounds."""
        value = self.take(name)
        if value is None:
            return default
        if type(value) is not int or not least <= value <= most:
            raise invalid(name, f"expected a whole number from {least} to {most}{_found(value)}")
        return value

    def number(self, name: str, default: float) -> float:
        """Return a number, whose bounds are not checked."""
        value = self.take(name, default)
        if type(value) not in (int, float):
            raise invalid(name, f"expected a number{_found(value)}")
        try:
            return float(value)
        except OverflowError:
            return math.inf  # What the bounds refuse.

    def flag(self, name: str, default: bool = False) -> bool:
        """Return true or false."""
        value = self.take(name, default)
        if type(value) is not bool:
            raise invalid(name, f"expected true or false{_found(value)}")
        return value

    def texts(self, name: str, most: int) -> tuple[str, ...]:
        """Return texts: one, a list of them, or none."""
        value = self.take(name, [])
        items = value if isinstance(value, list) else [value]
        if len(items) > most:
            raise invalid(name, f"expected at most {most} texts, found {len(items)}")
        return tuple(checked_text(item, name) for item in items)

    def only(self, name: str, allowed: Sequence[Any], why: str) -> None:
        """Refuse any value of a field but those that change nothing."""
        value = self.take(name)
        if value is not None and not any(_same(value, one) for one in allowed):
            raise invalid(name, f"is not supported: {why}", "unsupported_parameter")

    def finish(self) -> None:
        """Raise an ApiError for a field that was not read."""
        for name, value in self._body.items():
            if name not in self._known and value is not None:
                near = did_you_mean(name, self._known)
                raise ApiError(
                    400,
                    f"{name!r}: no such field, or one that this server does not support{near}",
                    param=name[:80],
                    code="unknown_parameter",
                )


def checked_text(value: Any, name: str) -> str:
    """Return a text; raise an ApiError for anything else."""
    if not isinstance(value, str):
        raise invalid(name, f"expected a text, found {json_kind(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise invalid(name, "holds half of a surrogate pair, which is no text") from None
    return value


def _same(value: Any, other: Any) -> bool:
    """Whether two JSON values are equal; true is not 1."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _found(value: Any) -> str:
    if type(value) in (int, float):
        shown = str(value) if isinstance(value, float) or abs(value) < 10**20 else "a huge number"
        return f"; found {shown}"
    return f"; found {json_kind(value)}"
