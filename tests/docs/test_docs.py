"""Pages are short-lined, linked, and name only what exists: files, functions, flags, fields."""

import argparse
import ast
import functools
import importlib
import re
import tomllib
from pathlib import Path

import pytest
import yaml

import ift_jax
from ift_jax.commands import main
from ift_jax.config import files, schema
from ift_jax.config.systems import modules_of, systems_table
from tests.docs import pages
from tests.docs.pages import DOCS, PAGES, REPO, name_of

README = REPO / "README.md"
ROOMS = ("ift_jax", "tasks", "configs", "tests", "docs", "launch", "benchmarks", ".ci")
SECTIONS = [name for name in files.default_config("decoder") if name != "seed"]
_PATH = re.compile(
    r"((?:[\w.-]+/)*[\w.*{},-]+\.(?:py|sh|md|toml|jinja|json|txt)|(?:[\w.-]+/)+)(:\S+)?"
)
_DOTTED = re.compile(r"(?<![\w/])((?:ift_jax|tasks|configs|tests|benchmarks)(?:\.[A-Za-z_]\w*)+)")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def _text(page: Path) -> str:
    """A page's text; of the changelog's tables only the column of today."""
    text = page.read_text(encoding="utf-8")
    if page.name == "CHANGELOG.md":
        text = re.sub(r"^\|[^|\n]*\|", "|", text, flags=re.M)
    return text


def _each_page():
    return pytest.mark.parametrize("page", PAGES, ids=name_of)


# --- Limits ------------------------------------------------------------------------------------


def test_readme_has_at_most_150_lines_and_short_cells():
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    cells = [cell for line in lines if line.startswith("|") for cell in line.split("|")]
    assert not [cell for cell in cells if len(cell.strip()) >= 100]


@_each_page()
def test_no_line_of_prose_is_longer_than_120(page):
    text = pages.prose(page.read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if not line.startswith("|")]
    assert not [line for line in lines if len(line) > 120]


BRITISH = re.compile(
    r"\b\w*(?:tokenis|normalis|optimis|recognis|realis|summaris|initialis|generalis|colour|licence|"
    r"behaviour|favour|labelled|judgement|learnt)\w*",
    re.I,
)


@_each_page()
def test_spelling_is_american(page):
    assert not BRITISH.findall(pages.prose(page.read_text(encoding="utf-8")))


def test_readme_says_where_to_find_what_newcomers_look_for():
    text = README.read_text(encoding="utf-8").partition("## Where to find what")[2]
    asked = {line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")}
    assert asked >= {
        "learning-rate schedule",
        "add a model family",
        "where a chat template is applied",
        "FLAN's cap",
        "add a metric",
        "loss mask",
        "gradient accumulation",
        "attention mask of packed rows",
        "what is restored on resume",
        "how validation is carved out",
    }


# --- Links -------------------------------------------------------------------------------------


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", pages.prose(page.read_text(encoding="utf-8")), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@_each_page()
def test_every_relative_link_resolves(page):
    for link in _LINK.findall(pages.prose(page.read_text(encoding="utf-8"))):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


def test_readme_links_every_page():
    links = _LINK.findall(README.read_text(encoding="utf-8"))
    linked = {(REPO / link.partition("#")[0]).resolve() for link in links}
    assert not [name_of(page) for page in PAGES[1:] if page not in linked]


def test_the_site_has_every_page():
    def leaves(node):
        if isinstance(node, str):
            return [node]
        children = node.values() if isinstance(node, dict) else node
        return [leaf for child in children for leaf in leaves(child)]

    site = yaml.safe_load((REPO / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(leaves(site["nav"])) == sorted(
        page.relative_to(REPO / "docs").as_posix() for page in DOCS
    )


# --- Files and names ---------------------------------------------------------------------------


@functools.cache
def _names_in(file: Path) -> frozenset[str]:
    """The names that a module defines at its top level, and those of its classes."""
    names = set()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return frozenset(names)


@functools.cache
def _file_names() -> frozenset[str]:
    return frozenset(path.name for room in ROOMS for path in (REPO / room).rglob("*.*"))


def _check_path(path: str, name: str, own: dict[str, str]) -> None:
    path = path.replace("NAME", "*")
    braces = re.search(r"\{([^}]*)\}", path)
    for choice in braces[1].split(",") if braces else [""]:
        each = path.replace(braces[0], choice) if braces else path
        if "/" not in each:
            here = each in own or each in _file_names() or (REPO / each).exists()
            assert here or each.endswith((".md", ".json", ".txt", ".toml")), each
        elif "*" in each:
            assert list(REPO.glob(each)), each
        else:
            assert (REPO / each).exists(), each
    if name and not path.startswith("configs/"):
        assert name in _names_in(REPO / path), f"{path}:{name}"


@_each_page()
def test_every_path_exists(page):
    text = _text(page)
    own = pages.named_files(text)
    found = 0
    for code in pages.inline_code(text):
        match = _PATH.fullmatch(code)
        if match and ("/" not in match[1] or match[1].split("/")[0] in ROOMS):
            _check_path(match[1], (match[2] or "").removeprefix(":"), own)
            found += 1
    assert found or page.name in ("CHANGELOG.md",) or page.parent.name in ("docs", "systems")


@_each_page()
def test_every_dotted_name_exists(page):
    public = {f"ift_jax.{name}" for name in ift_jax.__all__}
    for name in _DOTTED.findall(_text(page)):
        parts = name.split(".")
        folder, file = REPO.joinpath(*parts), REPO.joinpath(*parts).with_suffix(".py")
        parent = REPO.joinpath(*parts[:-1]).with_suffix(".py")
        names = _names_in(parent) if parent.exists() else ()
        suffix = parts[-1] in ("py", "md", "json")  # "benchmarks/pods.py" and the like.
        if name in public:
            continue
        assert suffix or folder.is_dir() or file.exists() or parts[-1] in names, name


def test_the_arrows_between_rooms_are_the_contract():
    text = (REPO / "docs" / "architecture.md").read_text(encoding="utf-8")
    [arrows] = [block.text for block in pages.blocks(text) if " -> " in block.text]
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))
    [contract] = [c for c in project["tool"]["importlinter"]["contracts"] if c["id"] == "layers"]
    layers = [layer.replace(" | ", ", ") for layer in contract["layers"]]
    assert " ".join(arrows.split()) == " -> ".join(layers)


@pytest.mark.usefixtures("own_registry")
def test_the_mixtures_of_the_pages_of_systems_are_registered():
    import seqio

    from ift_jax.inspection import listing

    systems = systems_table("tasks")
    lines = list(listing.lines(schema.DataConfig()))
    without_data = {
        module
        for module, line in zip(lines, lines[1:], strict=False)
        if "cannot be registered" in line
    }
    registered = seqio.MixtureRegistry.names() | seqio.TaskRegistry.names()
    checked = set()
    for page in (REPO / "docs" / "systems").glob("*.md"):
        for code in pages.inline_code(page.read_text(encoding="utf-8")):
            is_name = re.fullmatch(r"[a-z][a-z0-9_+]*[a-z0-9]", code)
            if not is_name or re.search("_found$|^t5_c4|^t5_all_mix$", code):  # They need data.
                continue
            module = modules_of(systems, code)
            if len(module) == 1 and module[0] not in without_data:
                assert code in registered, f"{page.name}: {code}"
                checked.add(code)
    assert {"flan2021_multi_shot", "tulu3_sft", "gsm8k"} <= checked


# --- Commands and fields -----------------------------------------------------------------------


@functools.cache
def _fields() -> frozenset[str]:
    """Every field of a config, "data.max_length"."""
    configs = [files.default_config(name) for name in ("decoder", "encoder_decoder")]
    sections = [(name, section) for config in configs for name, section in config.items()]
    return frozenset(
        {f"{name}.{field}" for name, section in sections if name != "seed" for field in section}
        | {"seed"}
    )


@_each_page()
def test_every_config_field_exists(page):
    text = _text(page)
    of_any_stage = re.sub(r"--config\.stages\.\w+\.", "--config.", text)
    found = set(re.findall(r"--config\.([a-z_]+(?:\.\w+)?)", of_any_stage))
    found |= set(re.findall(r"\bconfig\.([a-z]+\.[a-z_0-9]+) = ", text))
    for code in pages.inline_code(text):
        match = re.match(rf"((?:{'|'.join(SECTIONS)})\.[a-z_0-9]+)\b(?!\.|/)", code)
        if match and not code.endswith((".py", ".json", ".jsonl", ".model")):
            found.add(match[1])
    assert not found - _fields()


def _parser(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"ift {command}", allow_abbrev=False)
    importlib.import_module(f"ift_jax.commands.{command}").add_arguments(parser)
    return parser


@_each_page()
def test_every_ift_command_parses(page):
    for command in pages.ift_commands(page.read_text(encoding="utf-8")):
        assert command.name in main.COMMANDS, command
        parser = _parser(command.name)
        arguments = command.arguments
        own = arguments[: arguments.index("--")] if "--" in arguments else arguments
        if not command.whole or own[-1:] == ["..."]:
            flags = {word.partition("=")[0] for word in own if word.startswith("--")}
            known = set(re.findall(r"--[a-z][\w-]*", parser.format_help()))
            assert not {f for f in flags if not f.startswith("--config.")} - known, command
            continue
        try:
            args, rest = parser.parse_known_args(own)
        except SystemExit as stop:  # --help-config prints and exits with 0.
            assert stop.code == 0, command
            continue
        assert all(word.startswith("--config.") for word in rest), command
        config = getattr(args, "config", None) or ""
        if config.startswith(("configs/", "benchmarks/")):
            _load(config, rest)


def _load(config: str, overrides: list[str]) -> None:
    """A config of the checkout takes this argument and these fields."""
    files.load_stages(str(REPO / config), [word for word in overrides if "$" not in word])
