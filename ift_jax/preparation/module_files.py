"""The source files of the modules that register a run's tasks."""

import ast
import functools
import os
import sys
import sysconfig
import weakref
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from ift_jax.errors import UserError
from ift_jax.io.files import file_digest
from ift_jax.preparation.fingerprints import module_origin

_PACKAGE = Path(__file__).resolve().parent.parent
# What the file of a module held when it was first looked at.
_first_seen: "weakref.WeakKeyDictionary[ModuleType, str]" = weakref.WeakKeyDictionary()


def module_files(modules: Iterable[str]) -> list[Path]:
    """Return the source files of modules and of all they import, however deep, sorted by path.

    The `import` statements are followed, whatever else a process has loaded. The
    standard library, installed packages (unless a named module belongs to one) and this package,
    which `fingerprints.our_code` covers, are left out.
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
        origin = module_origin(name) or ""
        path = Path(origin).resolve()
        if not origin.endswith(".py") or path.is_relative_to(_PACKAGE):
            continue
        is_outside = any(path.is_relative_to(folder) for folder in outside)
        if is_outside and name.partition(".")[0] not in own_packages:
            continue
        found.add(path)
        parent = name.rpartition(".")[0]
        package = name if path.name == "__init__.py" else parent
        waiting += [parent, *_imports(path.read_bytes(), package)]
    return sorted(found)


def check_as_imported(files: Iterable[Path]) -> None:
    """Check that source files hold what this process imported them with.

    Stores are named after the files, but made by the imported code. In a notebook the two differ
    after a module was edited, because Python imports a module once.

    Raises:
        UserError: A file has changed since the first check of its module.
    """
    wanted = set(files)
    names = {path.name for path in wanted}
    for module in list(sys.modules.values()):
        file = getattr(module, "__dict__", {}).get("__file__") or ""  # Some are lazy objects.
        if os.path.basename(file) not in names or (path := _resolved(file)) not in wanted:
            continue
        digest = file_digest(path)
        if _first_seen.setdefault(module, digest) != digest:
            raise UserError(
                f"{path}: has changed since this process imported it; start Python (a notebook's "
                "kernel) again"
            )


@functools.cache
def _resolved(file: str) -> Path:
    """Return where a module's file is, without links.

    A process with TensorFlow has a thousand `__init__.py`, which take 0.1 s of CPU time to resolve.
    A notebook, a sweep, or `ift inspect` of many mixtures would look for them again and again.
    """
    return Path(file).resolve()


@functools.lru_cache(1024)
def _imports(source: bytes, package: str) -> tuple[str, ...]:
    """Return the names that a file may import; `from a import b` gives `a` and `a.b`.

    Args:
        source: What the file holds.
        package: What a relative import in it is relative to.
    """
    names: list[str] = []
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # No module that was imported: those have been parsed.
        return ()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                ancestors = parents[: len(parents) - node.level + 1]
                base = ".".join([*ancestors, base] if base else ancestors)
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return tuple(names)
