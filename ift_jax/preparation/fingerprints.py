"""What a store was made from: files, modules and their imports, as hashes (TensorFlow-free)."""

import importlib.util
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ift_jax
from ift_jax.io.files import file_digest, json_digest

_PACKAGE = Path(ift_jax.__file__).resolve().parent


def file_record(path: str | Path) -> dict[str, Any]:
    """A file's path, size, modification time and content hash; see `file_unchanged`."""
    path = os.path.abspath(path)
    return {"path": path, "stat": _stat(path), "sha256": file_digest(path)}


def file_unchanged(record: Mapping[str, Any]) -> bool:
    """Whether a file still holds what it held; its content is read only if its stat changed."""
    path, before = record["path"], record["stat"]
    try:
        now = _stat(path)
    except OSError:
        return False
    return now == before or (now[0] == before[0] and file_digest(path) == record["sha256"])


def _stat(path: str) -> list[int]:
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns]


def tree_digest(root: str, leave_out: str) -> str:
    """A hash of path, size and modification time of a file, or all in a folder but `leave_out`."""
    if not root:
        return ""
    root, leave_out = os.path.abspath(root), os.path.abspath(leave_out)
    paths = [root] if os.path.isfile(root) else []
    for folder, folders, files in os.walk(root):
        folders[:] = [f for f in folders if os.path.join(folder, f) != leave_out]
        paths += [os.path.join(folder, f) for f in files]
    return json_digest([[path, *_stat(path)] for path in sorted(paths)])


def siblings_digest(paths: Iterable[str]) -> str:
    """A hash of the names beside data files that end like them: a new one may match a pattern."""
    patterns = {(os.path.dirname(os.path.abspath(p)), os.path.splitext(p)[1]) for p in paths}
    found = [[str(p) for p in Path(folder).glob(f"*{suffix}")] for folder, suffix in patterns]
    return json_digest(sorted(map(sorted, found)))


def our_code() -> str:
    """Return a hash of the files of this package that determine what is in a store."""
    patterns = (
        "data/randomness.py",
        "data/store.py",
        "preparation/*.py",
        "sources/*.py",
        "text/**/*.py",
    )
    return code_digest(sorted(path for pattern in patterns for path in _PACKAGE.glob(pattern)))


def code_digest(paths: Iterable[Path]) -> str:
    """A hash of the names and bytes of source files; not of where they lie."""
    return json_digest([(path.name, file_digest(path)) for path in paths])


def module_origin(name: str) -> str | None:
    """Where a module would be imported from; None where there is none."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, AttributeError, ValueError):
        return None
    return spec.origin if spec else None
