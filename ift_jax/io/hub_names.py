"""Paths that are not there, but look like names on the Hugging Face Hub."""

import os
import re

_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_CACHED = re.compile(r"(?:^|/)models--(\w[\w.-]*)/snapshots/[^/]+$")


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


def is_hub_name(text: str) -> bool:
    """Whether a text is OWNER/NAME, and no path that is here."""
    return bool(_HUB_NAME.fullmatch(text)) and not os.path.exists(text)


def name_in_cache(path: str) -> str:
    """Return the hub's name of a model whose folder is in the cache of `huggingface_hub`, else "".

    The cache calls it `models--OWNER--NAME/snapshots/COMMIT`.
    """
    match = _CACHED.search(path.rstrip("/"))
    return match[1].replace("--", "/") if match else ""
