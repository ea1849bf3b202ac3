"""The source files of the modules that register a run's tasks."""

import ast
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from ift_jax.preparation.fingerprints import module_origin

_PACKAGE = Path(__file__).resolve().parent.parent


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
        waiting += [parent, *_imports(path, package)]
    return sorted(found)


def _imports(path: Path, package: str) -> list[str]:
    """Return the names that a file may import; `from a import b` gives `a` and `a.b`.

    Args:
        path: The file.
        package: What a relative import in it is relative to.
    """
    names: list[str] = []
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # No module that was imported: those have been parsed.
        return names
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
    return names
