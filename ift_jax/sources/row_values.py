"""Values of Arrow's types as texts and plain data, which rows of JSON have."""

import datetime
import decimal
import uuid
from collections.abc import Mapping
from typing import Any

_AS_TEXT = (decimal.Decimal, uuid.UUID)
_AS_ISO = (datetime.date, datetime.time)  # A datetime is a date.


def plain(value: Any) -> Any:
    """Return decimals, dates and bytes as texts, without quotes; what is no text stays as it is.

    Bytes that are no UTF-8 stay bytes: an image in a column that nothing reads is no mistake.
    """
    kind = type(value)
    if kind is str or kind is int or value is None:
        return value
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        # A map of Arrow comes as pairs of a key and a value.
        if value and all(isinstance(item, tuple) and len(item) == 2 for item in value):
            return {str(key): plain(item) for key, item in value}
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value
    if isinstance(value, _AS_ISO):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return str(value)
    return str(value) if isinstance(value, _AS_TEXT) else value


def json_value(value: Any) -> Any:
    """Return a value as `plain` does, and what JSON does not have, such as an image, as a text."""
    return _in_json(plain(value))


def _in_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _in_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_in_json(item) for item in value]
    return value if isinstance(value, str | int | float | None) else str(value)


def scalar_text(value: Any) -> Any:
    """Return a number or a boolean as a text, as in JSON; anything else as it is."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, int | float) else value
