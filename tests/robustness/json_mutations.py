"""Small faults in JSON: in a value, and in its text."""

import copy
import json
import math
import random
from typing import Any

# Values of every kind that a field may have by mistake.
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    7,
    2**31,
    10**12,
    10**24,
    0.5,
    1.0,
    -2.0,
    1e308,
    math.nan,
    math.inf,
    "",
    "x",
    "1",
    "\ud800",
    [],
    [1],
    [None],
    [[1]],
    ["x", 2],
    {},
    {"a": 1},
    {"content": 5},
)
_MOST_ITEMS = 40  # In a longer list or object only so many items may be changed.

Path = tuple[str | int, ...]


def spoiled_value(value: Any, rng: random.Random) -> tuple[Any, str]:
    """Return a copy of a JSON value with one fault, and a description of the fault."""
    changed = copy.deepcopy(value)
    path = rng.choice(_paths(changed, rng))
    if not path:
        return rng.choice(ODD_VALUES), "the whole value"
    parent = changed
    for step in path[:-1]:
        parent = parent[step]
    key, where = path[-1], ".".join(map(str, path))
    kind = rng.random()
    if kind < 0.15:
        del parent[key]
        return changed, f"without {where}"
    if kind < 0.25 and isinstance(parent, dict):
        odd = rng.choice(ODD_VALUES)
        parent[f"{key}_extra"] = odd
        return changed, f"{where}_extra = {odd!r}"
    before = parent[key]
    odd = _retyped(before, rng) if kind < 0.55 else rng.choice(ODD_VALUES)
    parent[key] = odd
    return changed, f"{where} = {odd!r}"[:200]


def _paths(value: Any, rng: random.Random, path: Path = ()) -> list[Path]:
    paths = [path]
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        return paths
    if len(items) > _MOST_ITEMS:
        items = rng.sample(items, _MOST_ITEMS)
    for key, item in items:
        paths += _paths(item, rng, (*path, key))
    return paths


def _retyped(value: Any, rng: random.Random) -> Any:
    """Return nearly the same value, in another type or size."""
    forms = [str(value), [value], {"value": value}, None]
    if isinstance(value, bool):
        forms += [int(value), not value, str(value).lower()]
    elif isinstance(value, int | float):
        forms += [-value, value * 10**12, value * 10**24, value + 0.5, value + 1, value * 2]
        if isinstance(value, int):
            forms.append(float(value))
        elif math.isfinite(value):
            forms.append(round(value))
    elif isinstance(value, str):
        forms += [value.upper(), value + " ", value[:-1], value * 3]
    elif isinstance(value, list):
        forms += [value[:-1], value * 2, value[0] if value else 0, dict(enumerate(value))]
    elif isinstance(value, dict):
        forms += [list(value), list(value.items()), list(value.values())]
    return rng.choice(forms)


def spoiled_text(value: Any, rng: random.Random) -> tuple[bytes, str]:
    """Return the text of a JSON value with a fault in its syntax or encoding, and what it is."""
    text = json.dumps(value)
    content = text.encode()
    cut = rng.randrange(len(content) + 1)
    digits = "9" * 5000
    faults = {
        "empty": b"",
        "cut off": content[:cut],
        "a flipped bit": _flipped(content, rng),
        "a byte order mark": b"\xef\xbb\xbf" + content,
        "UTF-16": text.encode("utf-16"),
        "Latin-1 in it": content[:cut] + b"\xe9" + content[cut:],
        "a null byte in it": content[:cut] + b"\0" + content[cut:],
        "something after it": content + b" {}",
        "deeply nested": b"[" * 100_000 + b"]" * 100_000,
        "deeply nested in a field": b'{"a": ' * 20_000 + b"1" + b"}" * 20_000,
        "a number of 5,000 digits": f'{{"hidden_size": {digits}, "a": {digits}}}'.encode(),
        "null": b"null",
        "a list": b"[" + content + b"]",
        "pairs": json.dumps(list(value.items()) if isinstance(value, dict) else [value]).encode(),
        "a string": json.dumps(text).encode(),
        "a comma at its end": content[:-1] + b"," + content[-1:],
    }
    name = rng.choice(sorted(faults))
    return faults[name], name


def _flipped(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]


def spoiled_json(value: Any, rng: random.Random) -> tuple[bytes, str]:
    """Return the bytes of a JSON file with up to three faults, and what they are.

    One file in twenty is left as it was.
    """
    if rng.random() < 0.05:
        return json.dumps(value).encode(), ""
    if rng.random() < 0.15:
        return spoiled_text(value, rng)
    changes = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        value, change = spoiled_value(value, rng)
        changes.append(change)
    return json.dumps(value).encode(), "; ".join(changes)
