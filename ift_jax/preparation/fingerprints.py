"""What a store was made from, as hashes: files, folders, modules. Imports no TensorFlow."""

import importlib.util
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ift_jax.io.files import file_digest, file_state, json_digest

_PACKAGE = Path(__file__).resolve().parent.parent
# The files of this package that determine what is in a store.
_OUR_CODE = (
    "data/randomness.py",
    "data/store.py",
    "preparation/**/*.py",
    "sources/**/*.py",
    "text/**/*.py",
)


def file_record(path: str | Path) -> dict[str, Any]:
    """Return a file's path, size, modification time and content hash; see `file_unchanged`."""
    path = os.path.abspath(path)
    return {"path": path, "stat": _stat(path), "sha256": file_digest(path)}


def file_unchanged(record: Mapping[str, Any]) -> bool:
    """Return whether a file holds what it held; its content is read only if its stat changed."""
    path = record["path"]
    before = record["stat"]
    try:
        now = _stat(path)
    except OSError:
        return False
    if now == before:
        return True
    same_size = now[0] == before[0]
    return same_size and file_digest(path) == record["sha256"]


def _stat(path: str) -> list[int]:
    """Return size and modification time."""
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns]


def tree_digest(root: str, leave_out: str) -> str:
    """Return a hash of path, size and modification time of a file, or of all in a folder.

    A link to nothing, such as an editor's lock, counts by its path.

    Args:
        root: The file or folder; "" for none.
        leave_out: A folder below it that does not count.
    """
    if not root:
        return ""
    root = os.path.abspath(root)
    leave_out = os.path.abspath(leave_out)
    paths = [root] if os.path.isfile(root) else []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if os.path.join(folder, name) != leave_out]
        paths += [os.path.join(folder, name) for name in files]
    return json_digest([[path, file_state(path)] for path in sorted(paths)])


def siblings_digest(paths: Iterable[str]) -> str:
    """Return a hash of the names beside data files that end like them.

    A new file of that kind may match a glob pattern of a source.
    """
    kinds = {(os.path.dirname(os.path.abspath(p)), os.path.splitext(p)[1]) for p in paths}
    names = [sorted(map(str, Path(folder).glob(f"*{suffix}"))) for folder, suffix in kinds]
    return json_digest(sorted(names))


def our_code() -> str:
    """Return a hash of the files of this package that determine what is in a store."""
    return code_digest(sorted(path for glob in _OUR_CODE for path in _PACKAGE.glob(glob)))


def code_digest(paths: Iterable[Path]) -> str:
    """Return a hash of the names and bytes of source files, not of the folders they are in."""
    return json_digest([(path.name, file_digest(path)) for path in paths])


def module_origin(name: str) -> str | None:
    """Return where a module would be imported from; None where there is none."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, AttributeError, ValueError):
        return None
    return spec.origin if spec else None
