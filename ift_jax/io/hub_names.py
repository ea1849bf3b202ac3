"""Paths that are not there, but look like names on the Hugging Face Hub."""

import os
import re

_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def hub_hint(path: str, *, is_data: bool = False) -> str:
    """Return the end of a message about a missing path: how to fetch it, if it looks like a name.

    Commands download nothing by themselves.

    Args:
        path: The path, as it was typed or made absolute.
        is_data: Whether it stands where data are expected, instead of a model.
    """
    name = os.path.relpath(path) if os.path.isabs(path) else path
    if not _HUB_NAME.fullmatch(name) or os.path.exists(os.path.dirname(name)):
        return ""
    return (
        f"; if {name} is a name on the Hugging Face Hub, fetch it first: "
        f"hf download {name}{' --repo-type dataset' if is_data else ''} --local-dir FOLDER"
    )
