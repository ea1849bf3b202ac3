"""Rows with exactly the shape that TFDS gives a data set, made from its own features.

`tfds.builder(name).info.features` is code of TFDS, so no data is needed. A row that a test writes
by hand goes through `shaped_row`, which refuses a field that TFDS does not have and a value that
its feature cannot hold.
"""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

_LENGTH = 2  # The number of elements of a made-up sequence.
# Labels that are plain integers in TFDS, and the values that the published files hold.
INTEGER_LABELS = {
    ("story_cloze/2016", "label"): (1, 2),
    ("hellaswag", "label"): (0, 1, 2, 3),
    ("sentiment140", "polarity"): (0, 4),
    ("wsc273", "label"): (0, 1),
}


@functools.cache
def features_of(name: str) -> Any:
    """Return the features of a data set of TFDS."""
    return tfds.builder(name, try_gcs=False).info.features


def labels_of(name: str, field: str = "label") -> list[Any]:
    """Return the class names of a field, or its values if it is a plain integer."""
    feature = features_of(name)[field]
    if isinstance(feature, tfds.features.ClassLabel):
        return list(feature.names)
    return list(INTEGER_LABELS[name, field])


def shaped_row(name: str, **given: Any) -> dict[str, Any]:
    """Return a row with all fields of a data set: the given ones, the others made up.

    Raises:
        ValueError: TFDS has no such field, or its feature cannot hold a given value.
    """
    features = features_of(name)
    row = _value(features, given, name)
    features.encode_example(row)
    return row


def _value(feature: Any, given: Any, key: str) -> Any:
    """Return the value of a feature, made up where None is given."""
    if isinstance(feature, tfds.features.FeaturesDict):
        _check_fields(feature, given or {}, key)
        return {name: _value(feature[name], (given or {}).get(name), name) for name in feature}
    if isinstance(feature, tfds.features.Sequence):
        return _sequence(feature.feature, given, key)
    if isinstance(feature, tfds.features.ClassLabel) and isinstance(given, str):
        return feature.str2int(given)
    if given is not None:
        return given
    kind = np.dtype(feature.np_dtype).kind
    return {"b": False, "i": 0, "u": 0, "f": 0.0}.get(kind, f"{key} text")


def _sequence(element: Any, given: Any, key: str) -> Any:
    """Return a list of values, or a dict of lists for a sequence of dicts, as TFDS reads it."""
    if not isinstance(element, tfds.features.FeaturesDict):
        values = range(_LENGTH) if given is None else given
        return [_element(element, None if given is None else v, key, v) for v in values]
    given = given or {}
    _check_fields(element, given, key)
    [length] = {len(values) for values in given.values()} or {_LENGTH}
    return {
        name: [_element(element[name], given.get(name, [None] * length)[i], name, i)
               for i in range(length)]
        for name in element
    }  # fmt: skip


def _element(element: Any, given: Any, key: str, number: Any) -> Any:
    value = _value(element, given, key)
    return f"{value} {number}" if given is None and isinstance(value, str) else value


def _check_fields(feature: Any, given: Mapping[str, Any], key: str) -> None:
    for name in given:
        if name not in feature:
            raise ValueError(f"{key}: TFDS has no {name!r}; it has {', '.join(feature)}")
