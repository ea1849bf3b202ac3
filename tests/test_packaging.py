"""What the repository promises as a package: metadata, size, names, and light imports."""

import ast
import importlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ift_jax

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("ift_jax", "tasks", "configs")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = sorted((ROOT / "launch" / "constraints").glob("*.txt"))
# Distributions whose import name differs from their own.
IMPORT_NAMES = {
    "absl-py": "absl",
    "orbax-checkpoint": "orbax",
    "pyyaml": "yaml",
    "tensorboardx": "tensorboardX",
}
# Dependencies of seqio that sources and preparation may import as well.
THROUGH_SEQIO = {"tensorflow", "tensorflow_datasets"}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# Packages that nothing imports without an extra.
EXTRA_OF_PACKAGE = {"ift_jax/serving": "serve", "ift_jax/evaluation/harness": "lm-eval"}


def _requirement_name(requirement: str) -> str:
    return _normal(re.match(r"[A-Za-z0-9._-]+", requirement).group())


def _sources() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def _project_files() -> list[Path]:
    """The files that git tracks, or without git every file in the project's folders."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode == 0:
        files = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        folders = (*PACKAGES, "tests", "launch", "benchmarks", ".ci")
        files = [path for folder in folders for path in (ROOT / folder).rglob("*")]
        files += [path for path in ROOT.iterdir() if path.name != ".git"]
    return [file for file in files if file.is_file() and "__pycache__" not in file.parts]


def test_installed_version_is_the_one_in_the_source():
    assert PROJECT["dynamic"] == ["version"]
    assert importlib.metadata.version("ift-jax") == ift_jax.__version__


def test_console_script_can_be_imported():
    module, function = PROJECT["scripts"]["ift"].split(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_every_third_party_import_is_a_declared_dependency():
    declared = {_requirement_name(requirement) for requirement in PROJECT["dependencies"]}
    allowed = {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in declared}
    allowed |= {*sys.stdlib_module_names, *PACKAGES, *THROUGH_SEQIO}
    undeclared = set()
    extras = PROJECT["optional-dependencies"]
    for path in _sources():
        extra = EXTRA_OF_PACKAGE.get(str(path.relative_to(ROOT).parent))
        of_extra = {_requirement_name(requirement) for requirement in extras.get(extra, ())}
        of_extra = {name.replace("-", "_") for name in of_extra}
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            undeclared |= {
                f"{path.relative_to(ROOT)}: {name}"
                for name in names
                if name.split(".")[0] not in allowed | of_extra
            }
    assert not undeclared


@pytest.mark.parametrize("path", CONSTRAINTS, ids=lambda path: path.stem)
def test_constraints_pin_every_dependency_to_one_version(path):
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines)
    pinned = {_requirement_name(line) for line in lines}
    extras = PROJECT["optional-dependencies"]
    wanted = {
        _requirement_name(requirement)
        for requirements in (PROJECT["dependencies"], *extras.values())
        for requirement in requirements
    }
    assert wanted <= pinned


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("ab", "ba", 2)],
)
def test_stand_in_for_editdistance(a, b, distance):
    names: dict = {}
    exec((ROOT / "launch" / "editdistance" / "editdistance.py").read_text(), names)
    assert names["eval"](a, b) == names["eval"](b, a) == distance


def _functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]


def test_no_file_has_over_400_lines_and_no_function_over_80():
    long_files = {
        str(path.relative_to(ROOT)): count
        for path in _sources()
        if (count := len(path.read_text().splitlines())) > 400
    }
    assert long_files == {}
    long_functions = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": count
        for path in _sources()
        for node in _functions(path)
        if (count := node.end_lineno - node.lineno + 1) > 80
    }
    assert long_functions == {}


def test_no_file_is_a_catch_all():
    names = {"utils", "util", "helpers", "helper", "common", "misc", "shared"}
    assert [path for path in _sources() if path.stem in names] == []


def test_files_name_no_machine():
    # The pattern is put together so that this file does not contain what it looks for.
    folders = ("work", "farm", "tmp/build", "root/.pyenv", "opt/wheels", "opt/pypi")
    pattern = re.compile(rf"(?<![\w.}}-])/({'|'.join(folders)})/|pypi[.]org|pythonhosted[.]")
    found = []
    for path in _project_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue  # A binary file, such as a tokenizer's model.
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in pattern.finditer(text)]
    assert found == []


def test_advice_to_install_an_extra_works_in_a_checkout():
    """The package is on no index, so an installer finds nothing under its name."""
    extras = set(PROJECT["optional-dependencies"])
    wrong = []
    advised = set()
    for path in _project_files():
        if path == Path(__file__):
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue  # A binary file, such as a tokenizer's model.
        by_name = re.findall(r".*(?:install|add).*\bift[-_]jax\[.*", text)
        wrong += [f"{path.relative_to(ROOT)}: {line.strip()}" for line in by_name]
        advised.update(re.findall(r"run launch/setup\.sh ([\w-]+)", text))
    assert wrong == []
    assert {"plan", "beam", "gcs", "gguf"} <= advised <= extras


def _imports_tensorflow(modules: list[str]) -> bool:
    """Whether importing these modules in a fresh Python imports TensorFlow or SeqIO."""
    program = (
        f"import importlib, sys\nfor module in {modules}: importlib.import_module(module)\n"
        "print(any(name in sys.modules for name in ('tensorflow', 'seqio')))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()[-1] == "True"


def _modules(*parts: str) -> list[str]:
    folder = ROOT.joinpath("ift_jax", *parts)
    assert folder.is_dir()
    paths = [path.relative_to(ROOT) for path in sorted(folder.rglob("*.py"))]
    paths = [path for path in paths if str(path.parent) not in EXTRA_OF_PACKAGE]
    return [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths]


# Folders with modules that a run imports although its stores exist.
LIGHT_ROOMS = (
    "checkpoint", "config", "data", "decoding", "evaluation", "interop", "io", "models",
    "planning", "sharding", "text", "training",
)  # fmt: skip


def test_a_run_whose_stores_exist_imports_neither_seqio_nor_tensorflow():
    modules = [module for room in LIGHT_ROOMS for module in _modules(room)]
    commands = [f"ift_jax.commands.{name}" for name in ("train", "generate", "chat", "main")]
    assert not _imports_tensorflow([*modules, *commands])


def test_the_check_for_tensorflow_sees_it_where_it_is():
    assert _imports_tensorflow(["ift_jax.sources.register"])
