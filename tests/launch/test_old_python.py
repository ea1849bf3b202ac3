"""The launchers under a Python that is too old for them, such as the one of macOS."""

import ast
import subprocess
import sys

import pytest

from tests.launch.fakes import ROOT

FILES = sorted((ROOT / "launch").glob("*.py"))
LAUNCHERS = [path.name for path in FILES if path.read_text().startswith("#!")]
# Runs a launcher as if Python were older. It ends before anything but the first module is imported.
AS_OLD = """
import runpy, sys
folder, name, *version = sys.argv[1:]
sys.path.insert(0, folder)
sys.version_info = tuple(map(int, version))
sys.argv = [f"launch/{name}", "--help"]
ours = {"tpu_types", "checkout", "command_runner", "tpu_job", "tpu_slice"}
try:
    runpy.run_module(name.removesuffix(".py"), run_name="__main__")
finally:
    assert not ours & set(sys.modules), ours & set(sys.modules)
"""


@pytest.mark.parametrize("version", [(3, 8, 18), (3, 9, 6), (3, 10, 12)])
@pytest.mark.parametrize("name", LAUNCHERS)
def test_an_old_python_is_told_what_is_needed_in_one_line(name, version):
    words = [str(ROOT / "launch"), name, *map(str, version)]
    done = subprocess.run([sys.executable, "-c", AS_OLD, *words], capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: Python 3.11 or newer is needed, and ")
    assert f" is {version[0]}.{version[1]}; " in done.stderr
    assert f"`python3.12 launch/{name} ...`" in done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_an_old_python_can_parse_them(path):
    ast.parse(path.read_text(), feature_version=(3, 8))


def test_what_stands_before_the_check_runs_on_an_old_python():
    """Imports of the standard library alone: an annotation such as `str | None` would fail."""
    body = ast.parse((ROOT / "launch" / "arguments.py").read_text()).body
    before = body[: next(i for i, node in enumerate(body) if isinstance(node, ast.If))]
    assert isinstance(before[0], ast.Expr)  # The docstring.
    modules = {
        name
        for node in before[1:]
        for name in (
            [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
    }
    assert modules == {"argparse", "re", "sys", "collections.abc"}
    assert LAUNCHERS == ["slurm.py", "tpu_vm.py", "xpk.py"]
    for name in LAUNCHERS:
        nodes = ast.walk(ast.parse((ROOT / "launch" / name).read_text()))
        imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
        first = min((node for node in imports if _names_ours(node)), key=lambda node: node.lineno)
        assert isinstance(first, ast.Import) and first.names[0].name == "arguments"


def _names_ours(node):
    names = [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
    return any((ROOT / "launch" / f"{name}.py").exists() for name in names)
