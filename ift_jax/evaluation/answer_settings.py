"""The settings beside a file of answers, with which alone it may be continued."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ift_jax.errors import UserError
from ift_jax.io.files import write
from ift_jax.io.json_reader import read_json_object
from ift_jax.io.temporary import remove_leftovers_of

REMEDY = "remove it or name another --output"


def check_continuable(path: str) -> None:
    """Check what can be told of a file of answers before a model is loaded.

    Raises:
        UserError: The file holds something, and nothing says what it was begun with.
    """
    beside = _beside(path)
    if _holds_something(path) and not beside.exists():
        raise UserError(f"{path}: exists, and there is no {beside} to continue it; {REMEDY}")


def begin_or_check(path: str, now: Mapping[str, Any]) -> bool:
    """Write the settings beside a new file of answers, or check those beside one to continue.

    Args:
        path: The file; its settings are in `<path>.settings.json`.
        now: The present settings, in JSON's types.

    Returns:
        Whether the file holds something.

    Raises:
        UserError: The file was begun with other settings, or nothing says with which; or the file
            of settings holds something else.
        WriteError: The settings cannot be written.
    """
    beside = _beside(path)
    remove_leftovers_of(beside)
    if not _holds_something(path):
        if beside.exists() and not read_json_object(beside).keys() & now.keys():
            raise UserError(
                f"{beside}: holds no settings of ours, and would be replaced; name another --output"
            )
        write(beside, json.dumps(dict(now), indent=2).encode())
        return False
    check_continuable(path)
    check_same_settings(path, read_json_object(beside), now)
    return True


def _beside(path: str) -> Path:
    return Path(f"{path}.settings.json")


def _holds_something(path: str) -> bool:
    return os.path.exists(path) and os.path.getsize(path) > 0


def check_same_settings(
    path: str, before: Mapping[str, Any], now: Mapping[str, Any], remedy: str = REMEDY
) -> None:
    """Check that a file of answers was begun with the present settings.

    Args:
        path: The file of answers.
        before: What the file beside it holds.
        now: The present settings, in JSON's types.
        remedy: What an error says to do.

    Raises:
        UserError: They differ; names the first setting that does.
    """
    for name in {**now, **before}:
        old, new = before.get(name), now.get(name)
        if old != new:
            raise UserError(f"{path}: was begun with {name} {old!r}, now it is {new!r}; {remedy}")
