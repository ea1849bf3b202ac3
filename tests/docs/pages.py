"""The pages of the project: their code blocks, their inline code, and the commands in them."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

REPO = Path(__file__).parents[2]
DOCS = sorted((REPO / "docs").rglob("*.md"))
PAGES = [
    REPO / "README.md",
    REPO / "CONTRIBUTING.md",
    REPO / "CHANGELOG.md",
    REPO / "benchmarks" / "README.md",
    *DOCS,
]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_FILE_NAME = re.compile(r"(?:# |\{#- )([\w.]+)(?: -#\})?\n")
_IFT = re.compile(r"(?:^|(?<=[\s'`(]))(?:\.venv/bin/ift|launch/local\.sh|ift) ([a-z]+)(?= |$)")


class Block(NamedTuple):
    """A fenced block of code."""

    language: str
    text: str


class Command(NamedTuple):
    """An `ift` command of a page."""

    name: str  # "train"
    arguments: list[str]
    whole: bool  # False for a mention in a sentence, which may leave out required flags.


def name_of(page: Path) -> str:
    """The path of a page below the checkout."""
    return page.relative_to(REPO).as_posix()


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page."""
    return [Block(*match) for match in _BLOCK.findall(text)]


def prose(text: str) -> str:
    """A page without its fenced blocks; the number of lines stays."""
    return _BLOCK.sub(lambda match: "\n" * match[0].count("\n"), text)


def inline_code(text: str) -> list[str]:
    """The inline code of a page, white space as single spaces."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(text))]


def named_files(text: str) -> dict[str, str]:
    """The files of a page: blocks whose first line is a comment with a file name."""
    files = {}
    for block in blocks(text):
        if block.language in ("python", "jinja") and (match := _FILE_NAME.match(block.text)):
            files[match[1]] = block.text
    return files


def executed_lines(text: str) -> list[str]:
    """The lines of the `bash` blocks, continued lines joined. A block in `sh` is only shown."""
    scripts = [block.text for block in blocks(text) if block.language == "bash"]
    return [line for script in scripts for line in joined_lines(script) if line]


def ift_commands(text: str) -> list[Command]:
    """Every `ift` command of a page, in blocks and in sentences."""
    lines = [line for block in blocks(text) for line in joined_lines(block.text)]
    found = [command for line in lines for command in _commands(line, whole=True)]
    for code in inline_code(text):
        found += _commands(code, whole=False)
    return found


def joined_lines(script: str) -> list[str]:
    """The lines of a shell script, continued ones joined; a quoted text may span lines too."""
    script = script.replace("\\\n", " ").replace("&&\n", "&& ")
    return [line.strip() for line in script.splitlines()]


def _commands(line: str, whole: bool) -> list[Command]:
    found = []
    for match in _IFT.finditer(line):
        rest = re.split(r" && | \| ", line[match.end() :])[0]
        try:
            arguments = shlex.split(rest, comments=True)
        except ValueError:  # The end of a quotation that began before `ift`.
            arguments = shlex.split(rest.rstrip("'"), comments=True)
        found.append(Command(match[1], arguments, whole))
    return found
