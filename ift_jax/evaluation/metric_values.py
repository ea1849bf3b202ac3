"""Values that metrics return, as plain Python values that JSON can hold."""

import dataclasses
import json
import math
from collections.abc import Container, Iterable, Mapping
from typing import Any, TypeGuard

import numpy as np

# Fields that hold the value of SeqIO's Scalar, Text, Histogram and Generic.
_VALUE_FIELDS = ("value", "textdata", "values", "tensor")


def plain(value: Any) -> Any:
    """Return a metric's value as numbers, texts, lists and dicts of Python.

    Numbers and arrays of NumPy or JAX, and SeqIO's `Scalar`, `Text`, `Histogram` and `Generic`, are
    taken out of what holds them. Numbers that are not finite stay as they are; `without_nan`
    replaces them.

    Raises:
        TypeError: The value is anything else, such as an image.
    """
    if isinstance(value, np.generic):  # Before the types of Python: np.float64 is a float, too.
        return plain(value.item())
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        for field in _VALUE_FIELDS:
            if hasattr(value, field):
                return plain(getattr(value, field))
    elif hasattr(value, "__array__"):
        return plain(np.asarray(value).tolist())
    raise TypeError(f"expected numbers or texts, found {type(value).__name__}")


def is_number(value: Any) -> TypeGuard[float]:
    """Return whether a plain value is a number, NaN and infinity included."""
    return isinstance(value, int | float)


def number_names(scores: Iterable[Mapping[str, Any]], left_out: Container[str] = ()) -> list[str]:
    """Return the names of the metrics that are a number in some scores, as they come first."""
    return list(
        dict.fromkeys(
            name
            for of_task in scores
            for name, value in of_task.items()
            if is_number(value) and name not in left_out
        )
    )


def without_nan(value: Any) -> Any:
    """Return a plain value with null for numbers that are not finite, which JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return value


def json_text(value: Any) -> str:
    """Return the text of a JSON file with a plain value; numbers that are not finite are null."""
    return json.dumps(without_nan(value), indent=2, allow_nan=False)


def json_lines(values: Iterable[Any]) -> bytes:
    """Return the content of a file of JSON lines; numbers that are not finite are null."""
    lines = [json.dumps(without_nan(value), ensure_ascii=False) + "\n" for value in values]
    return "".join(lines).encode()
