"""The commands of all pages, executed: with a tiny model and a few rows, in one folder."""

import re
import tomllib

import pytest

from tests.docs import page_commands, page_folder, pages
from tests.docs.page_commands import NOT_EXECUTED, lines_of, reason_against

pytestmark = pytest.mark.usefixtures("one_device")
WITH_COMMANDS = [
    page
    for page in map(pages.name_of, pages.PAGES)
    if any(reason_against(line) is None for line in lines_of(page))
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def commands(folder):
    return page_folder.make_page_folder(folder)


@pytest.mark.usefixtures("own_registry")
@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_every_command_of_a_page_is_executed(page, commands, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    for line in lines_of(page):
        if reason_against(line) is None:
            assert commands.run(line, capsys) is not None


def _lines(*parts):
    """The lines of all pages that hold all of the parts."""
    lines = [line for page in map(pages.name_of, pages.PAGES) for line in lines_of(page)]
    return [line for line in lines if all(part in line for part in parts)]


def test_what_is_not_executed_is_on_a_page():
    lines = _lines()
    assert {reason_against(line) for line in lines} - {None} == set(NOT_EXECUTED)
    first = {line.split()[0] for line in lines if reason_against(line) is None}
    assert first == set(page_commands.IFT)


def test_what_is_set_up_is_an_extra():
    project = tomllib.loads((pages.REPO / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    named = [line.split("#")[0].split()[1:] for line in _lines("launch/setup.sh ")]
    assert named and {extra for words in named for extra in words} <= set(extras)


def test_launchers_have_the_flags_of_the_pages():
    sources = [path.read_text(encoding="utf-8") for path in (pages.REPO / "launch").glob("*.py")]
    known = set(re.findall(r'"(--[a-z][a-z-]*)"', "".join(sources)))
    lines = [line.split(" -- ")[0] for line in _lines("launch/", ".py ")]
    flags = {flag for line in lines for flag in re.findall(r"--[a-z][a-z-]*", line)}
    assert len(lines) >= 5 and flags and flags <= known
