"""The source files of the modules that register a run's tasks."""

import ast
import sysconfig
from collections.abc import Iterable
from pathlib import Path

import ift_jax
from ift_jax.preparation.fingerprints import module_origin

_IFT_JAX = Path(ift_jax.__file__).resolve().parent


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
        if not file.endswith(".py") or path.is_relative_to(_IFT_JAX):
            continue
        if name.partition(".")[0] not in own_packages and any(map(path.is_relative_to, outside)):
            continue
        found.add(path)
        waiting += [parent, *_imports(path, name if path.name == "__init__.py" else parent)]
    return sorted(found)


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
