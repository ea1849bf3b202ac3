"""Atomic writes, JSON, and digests of files."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ift_jax.errors import UserError
from ift_jax.io.json_reader import parse_json
from ift_jax.io.paths import is_remote
from ift_jax.io.temporary import temporary_file
from ift_jax.io.write_errors import write_errors

Log = Callable[[str], None]


def write(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Writes a local or remote file atomically, and makes its folder.

    Args:
        path: The file.
        content: Its bytes.
        durable: Whether it survives a crash of the machine from now on. Otherwise `make_durable`
            has to follow; it waits for many files at once in the time of a few.

    Raises:
        WriteError: The file cannot be written.
    """
    with write_errors(path):
        if is_remote(path):
            path.write_bytes(bytes(content))  # An object appears when all of it is written.
            return
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content, durable=durable)


def write_atomically(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Writes a local file durably; after a crash it is complete, or as it was before.

    Args:
        path: The file.
        content: Its bytes.
        durable: As for `write`.

    Raises:
        WriteError: The file cannot be written.
    """
    with new_content(path, durable=durable) as temporary, open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        if durable:
            os.fsync(file.fileno())


@contextlib.contextmanager
def new_content(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yields a file beside a local one, which takes its name when the block ends without an error.

    The block makes what it writes durable.

    Args:
        path: The local file.
        durable: Whether the name is durable, too, when the block has ended.

    Raises:
        WriteError: A file cannot be written.
    """
    with write_errors(path), temporary_file(path) as temporary:
        yield temporary
        os.replace(temporary, path)
        if durable:
            sync_folder(path.parent)


def make_durable(path: Path) -> None:
    """Makes the content of a local file durable; `sync_folder` does so with its name.

    Raises:
        WriteError: The file cannot be written.
    """
    with write_errors(path), open(path, "rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Makes renames in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def append_json_lines(path: str, values: Iterable[Any]) -> None:
    """Appends a line of JSON for each value to a local file, durably.

    Raises:
        WriteError: The file cannot be written; it may hold a part of the lines.
    """
    lines = [json.dumps(value, ensure_ascii=False) + "\n" for value in values]
    with write_errors(path), open(path, "a", encoding="utf-8") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())


def json_bytes(value: Any) -> bytes:
    """The bytes of a JSON file; equal values give equal bytes."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def read_json(path: Path) -> Any:
    """The JSON value in a file, or None if the file is missing or broken."""
    try:
        return parse_json(path.read_bytes(), str(path))
    except (OSError, UserError):
        return None


def json_digest(value: Any) -> str:
    """SHA-256, in hex, of a JSON value; the order of an object's keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def file_state(path: str | Path) -> tuple[int, int] | None:
    """Size and modification time (ns) of a file, which tell that it was written; None without."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def file_digest(path: str | Path) -> str:
    """SHA-256, in hex, of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_template_file(path: str) -> str:
    """The text of a `.jinja` file.

    Raises:
        UserError: the file is missing, or is not UTF-8.
    """
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            return stream.read()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"format.template: no chat template in {path!r} ({error})") from error
