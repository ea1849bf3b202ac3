"""Templates of FLAN, their options, and few-shot layouts: from fields to a prompt.

The templates are data: `flan_templates/*.toml`, read when a task is first used. All wording is
ours; the papers (arXiv:2109.01652, arXiv:2301.13688) give the scheme.
"""

import dataclasses
import functools
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ift_jax.data.randomness import Draws

FOLDER = Path(__file__).with_name("templates")
PER_GROUP = 10

Fields = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Template:
    """An instruction with fields in braces, and its answer.

    `[[...]]` and `{options}` are shown only where options are. An inverted template asks for
    what is an input otherwise (e.g. for the question, given the answer).
    """

    input: str
    target: str
    inverted: bool = False

    @functools.cached_property
    def needs(self) -> frozenset[str]:
        """The fields that it names, but the options."""
        return _named(self.input + self.target)

    @functools.cached_property
    def asks(self) -> frozenset[str]:
        """The fields that its input names, but the options."""
        return _named(self.input)


@functools.cache
def groups() -> Mapping[str, tuple[Template, ...]]:
    """All groups of templates by name; in each the inverted ones are last."""
    found: dict[str, tuple[Template, ...]] = {}
    for path in sorted(FOLDER.glob("*.toml")):
        with path.open("rb") as file:
            tables = tomllib.load(file)
        for name, table in tables.items():
            if name in found:
                raise ValueError(f"{path}: group {name!r} is there twice")
            target = table.get("target", "{answer}")
            plain = [
                Template(text, target) if isinstance(text, str) else Template(*text)
                for text in table["templates"]
            ]
            inverted = [Template(*pair, inverted=True) for pair in table.get("inverted", [])]
            found[name] = (*plain, *inverted)
    return found


@dataclasses.dataclass(frozen=True)
class OptionStyle:
    """How options are listed. `marks` "" has a bullet before each; others number them.

    `wrap` is the bullet, or what stands around a mark: "({})". Where options have marks, the
    answer is the mark.
    """

    header: str = "OPTIONS:"
    marks: str = ""  # "", "A", "a", "1" or "i".
    wrap: str = "-"
    separator: str = "\n"
    ending: str = ""

    def label(self, k: int, n: int) -> str:
        """The mark of option `k` (from 0) of `n`; letters give way to numbers beyond 26."""
        if not self.marks:
            return self.wrap
        kind = "1" if n > 26 and self.marks in "Aa" else self.marks
        if kind == "i":
            return self.wrap.format(_roman(k + 1))
        return self.wrap.format(k + 1 if kind == "1" else chr(ord(kind) + k))

    def block(self, options: Sequence[str]) -> str:
        """The text that takes the place of `{options}`."""
        n = len(options)
        items = [f"{self.label(k, n)} {text}".strip() for k, text in enumerate(options)]
        listed = self.separator.join(items)
        head = f"{self.header}\n" if self.header else ""
        return head + listed + (f"\n{self.ending}" if self.ending else "")

    def answer(self, options: Sequence[str], answer: str) -> str:
        """The answer as it is to be given: the option, or its mark without punctuation."""
        if not self.marks:
            return answer
        mark = self.label(list(options).index(answer), len(options))
        return mark.rstrip(":.- " if "(" in mark else ":.-) ")


PLAIN = OptionStyle()
# Ours; as many of each as the Flan Collection has: 16 headers, 90 ways to list, 3 endings.
HEADERS = (
    "OPTIONS:", "Options:", "Choices:", "Possible answers:", "Choose from these:",
    "Pick one of the following:", "The choices are:", "Select an answer.", "Answer choices:",
    "What can be chosen:", "One of these is right:", "Your options are the following.",
    "CHOOSE ONE:", "Available answers:", "Alternatives:", "",
)  # fmt: skip
_BULLETS = ("-", "*", "+", ">", "•", "--", "=>", "·", "")
_WRAPS = ("{})", "({})", "{}.", "[{}]", "{}:", "{} -", "<{}>", "#{}", "({}):", "[{}]:")
_SEPARATORS = ("\n", "; ")
LISTS = (
    *(("", bullet, "\n") for bullet in _BULLETS),
    ("", "-", "\n\n"),
    *((m, w, s) for m in ("A", "a", "1", "i") for w in _WRAPS for s in _SEPARATORS),
)
ENDINGS = ("", "Choose one.", "Which is it?")


def draw_style(draws: Draws) -> OptionStyle:
    """A style of the Collection: the plain block for half of the examples, else any."""
    if draws.below(2):
        return PLAIN
    header = draws.choice(HEADERS)
    marks, wrap, separator = draws.choice(LISTS)
    return OptionStyle(header, marks, wrap, separator, draws.choice(ENDINGS))


def fill(template: Template, fields: Fields, style: OptionStyle | None) -> tuple[str, str]:
    """Returns input and target of an example; without a style no options are shown."""
    text = template.input
    values = dict(fields)
    if style is None:
        text = re.sub(r"\s*\[\[.*?\]\]|\s*\{options\}(?=\s|$)", "", text)
    elif "{options}" in text:
        text = text.replace("[[", "").replace("]]", "")
        if not template.inverted:
            values["answer"] = style.answer(fields["options"], fields["answer"])
        values["options"] = style.block(fields["options"])
    return text.format_map(values).strip(), template.target.format_map(values).strip()


@dataclasses.dataclass(frozen=True)
class Layout:
    """How exemplars and query follow one another: what stands before and between them."""

    before_input: str = ""
    before_target: str = "\n"
    between: str = "\n\n"
    opening: str = ""

    def prompt(self, exemplars: Sequence[tuple[str, str]], query: str) -> str:
        """The exemplars with their answers, then the query."""
        shown = [
            f"{self.before_input}{text}{self.before_target}{target}{self.between}"
            for text, target in exemplars
        ]
        last = f"{self.before_input}{query}{self.before_target}".rstrip()
        return f"{self.opening if shown else ''}{''.join(shown)}{last}"


LAYOUT = Layout()
# Ours, and such that any template can stand in them.
LAYOUTS = (
    LAYOUT,
    Layout("", "\n\n", "\n\n\n"),
    Layout("", "\n", "\n###\n"),
    Layout("", "\n-> ", "\n---\n"),
    Layout("Input: ", "\nOutput: "),
    Layout("Instruction: ", "\nReply: "),
    Layout("User: ", "\nAssistant: "),
    Layout("[Task]\n", "\n[Solution]\n"),
    Layout("", "\n=> ", "\n\n", "Do the last one as the others were done.\n\n"),
    Layout("Prompt:\n", "\nResponse:\n", "\n\n", "Some prompts with their responses:\n\n"),
)


def fitted(
    layout: Layout, exemplars: Sequence[tuple[str, str]], query: str, max_characters: int
) -> str:
    """The prompt with as many exemplars, from the first, as fit."""
    for n in range(len(exemplars), 0, -1):
        text = layout.prompt(exemplars[:n], query)
        if len(text) <= max_characters:
            return text
    return layout.prompt((), query) if exemplars else query


def _named(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\{(\w+)\}", text)) - {"options"}


def _roman(n: int) -> str:
    digits = ((50, "l"), (40, "xl"), (10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i"))
    text = ""
    for value, letters in digits:
        text += letters * (n // value)
        n %= value
    return text
