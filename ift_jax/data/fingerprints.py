"""What a store was made from: files, modules and their imports, as hashes (TensorFlow-free)."""

import ast
import hashlib
import importlib.util
import json
import os
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).resolve().parents[1]


def digest(value: Any) -> str:
    """SHA-256, in hex, of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def file_digest(path: str | Path) -> str:
    """SHA-256, in hex, of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    return digest([[path, *_stat(path)] for path in sorted(paths)])


def siblings_digest(paths: Iterable[str]) -> str:
    """A hash of the names beside data files that end like them: a new one may match a pattern."""
    patterns = {(os.path.dirname(os.path.abspath(p)), os.path.splitext(p)[1]) for p in paths}
    found = [[str(p) for p in Path(folder).glob(f"*{suffix}")] for folder, suffix in patterns]
    return digest(sorted(map(sorted, found)))


def our_code() -> str:
    """A hash of the files of this package, and of our sources, that determine a store."""
    files = [path for pattern in ("text/*.py", "data/store.py") for path in _PACKAGE.glob(pattern)]
    for package in ("tasks.sources", "tasks.preparation"):
        spec = importlib.util.find_spec(package)
        files += Path(spec.origin).parent.glob("*.py") if spec and spec.origin else ()
    return code_digest(sorted(files))


def code_digest(paths: Iterable[Path]) -> str:
    """A hash of the names and bytes of source files; not of where they lie."""
    return digest([(path.name, file_digest(path)) for path in paths])


def module_files(modules: Iterable[str]) -> list[Path]:
    """The source files of modules and of all they import, however deep, sorted by path.

    Followed through the `import` statements, whatever else a process has loaded. Left out: the
    standard library, installed packages (unless a named module belongs to one), and this package
    (`our_code` covers it).
    """
    waiting = list(modules)
    own_packages = {name.partition(".")[0] for name in waiting}
    outside = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    found: set[Path] = set()
    seen: set[str] = {""}
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        file, parent = module_origin(name) or "", name.rpartition(".")[0]
        path = Path(file).resolve()
        if not file.endswith(".py") or path.is_relative_to(_PACKAGE):
            continue
        if name.partition(".")[0] not in own_packages and any(map(path.is_relative_to, outside)):
            continue
        found.add(path)
        waiting += [parent, *_imports(path, name if path.name == "__init__.py" else parent)]
    return sorted(found)


def module_origin(name: str) -> str | None:
    """Where a module would be imported from; None where there is none."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, AttributeError, ValueError):
        return None
    return spec.origin if spec else None


def _imports(path: Path, package: str) -> list[str]:
    """The names that a file may import; `from a import b` gives `a` and `a.b`."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join(parents[: len(parents) - node.level + 1] + [base] * bool(base))
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return names
