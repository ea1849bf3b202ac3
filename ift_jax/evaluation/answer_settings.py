"""The settings beside a file of answers, with which alone it may be continued."""

from collections.abc import Mapping
from typing import Any

from ift_jax.errors import UserError

REMEDY = "remove it or name another --output"


def check_same_settings(path: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Check that a file of answers was begun with the present settings.

    Args:
        path: The file of answers.
        before: What the file beside it holds.
        now: The present settings, in JSON's types.

    Raises:
        UserError: They differ; names the first setting that does.
    """
    for name in {**now, **before}:
        old, new = before.get(name), now.get(name)
        if old != new:
            raise UserError(f"{path}: was begun with {name} {old!r}, now it is {new!r}; {REMEDY}")
