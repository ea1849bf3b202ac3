"""Folders of files that are there as a whole or not at all."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from ift_jax.errors import UserError


@contextlib.contextmanager
def new_folder(path: str, flag: str, writes: bool = True) -> Iterator[str]:
    """Yield a folder to fill, which gets the name `path` when the block ends without an error.

    Args:
        path: The folder; it must be absent or empty.
        flag: The flag that `path` comes from; for messages.
        writes: Whether this process creates and renames the folder. Other processes of the same
            run get its temporary name.

    Raises:
        UserError: `path` is not empty.
    """
    if os.path.isdir(path) and os.listdir(path):
        raise UserError(f"{flag} {path}: is not empty; name a new folder")
    partial = path.rstrip("/") + ".partial"
    if writes:
        shutil.rmtree(partial, ignore_errors=True)
        os.makedirs(partial)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if writes:
        if os.path.isdir(path):
            os.rmdir(path)
        os.replace(partial, path)


def write_files(folder: str, files: Mapping[str, Any]) -> None:
    """Write files by name, each one whole or not at all; a value that is not bytes as JSON."""
    for name, content in files.items():
        if not isinstance(content, bytes):
            content = (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        temporary = path + ".new"
        with open(temporary, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
