"""Folders of files that are there as a whole or not at all."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ift_jax.errors import WriteError
from ift_jax.io.files import sync_folder, write
from ift_jax.io.outputs import check_new_folder
from ift_jax.io.temporary import temporary_folder
from ift_jax.io.write_errors import named_as, write_errors


@contextlib.contextmanager
def new_folder(path: str, flag: str, writes: bool = True) -> Iterator[str]:
    """Yield a folder to fill, which gets the name `path` when the block ends without an error.

    A command that makes the folder holds its lock all the while (`ift_jax.io.outputs.new_output`).

    Args:
        path: The folder; it must be absent or empty.
        flag: The flag that `path` comes from; for messages.
        writes: Whether this process creates and renames the folder. The other processes of a run
            write nothing, and get `path` itself.

    Raises:
        UserError: `path` is not a new folder; see `check_new_folder`.
        WriteError: A file in the block, or the folder itself, cannot be written.
    """
    check_new_folder(path, flag)
    if not writes:
        yield path
        return
    target = Path(os.path.realpath(path))
    with contextlib.ExitStack() as stack:
        with write_errors(path):
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = stack.enter_context(temporary_folder(target))
        with named_as(path, temporary):
            yield str(temporary)
        try:
            os.rename(temporary, target)  # Replaces an empty folder.
            sync_folder(target.parent)
        except OSError as error:
            check_new_folder(path, flag)  # Another process may have filled it meanwhile.
            raise WriteError(f"{flag} {path}: cannot be made: {error.strerror}") from error


def write_files(folder: str, files: Mapping[str, Any]) -> None:
    """Write files by name, each one whole or not at all; a value that is not bytes as JSON.

    Raises:
        WriteError: A file cannot be written.
    """
    for name, content in files.items():
        if not isinstance(content, bytes):
            content = (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
        write(Path(folder, name), content)
