"""How the options of a question are listed, and how an answer refers to one of them.

The wording is ours. The Flan Collection (arXiv:2301.13688) has as many headers (16), ways to list
(90) and endings (3).
"""

import dataclasses
from collections.abc import Sequence

from ift_jax.data.randomness import Draws


@dataclasses.dataclass(frozen=True)
class OptionStyle:
    """A way to list options.

    Attributes:
        header: The line above the options; "" for none.
        marks: How the options are marked: "A", "a", "1" or "i", or "" for a bullet before each.
            With marks, the answer is the mark and not the text of the option.
        wrap: The bullet, or what stands around a mark, such as "({})".
        separator: What stands between two options.
        ending: The line below the options; "" for none.
    """

    header: str = "OPTIONS:"
    marks: str = ""
    wrap: str = "-"
    separator: str = "\n"
    ending: str = ""

    def label(self, k: int, n: int) -> str:
        """Return the mark of option `k` (from 0) of `n`.

        With more than 26 options, letters give way to numbers.
        """
        if not self.marks:
            return self.wrap
        kind = "1" if n > 26 and self.marks in "Aa" else self.marks
        if kind == "i":
            return self.wrap.format(_roman(k + 1))
        if kind == "1":
            return self.wrap.format(k + 1)
        return self.wrap.format(chr(ord(kind) + k))

    def block(self, options: Sequence[str]) -> str:
        """Return the text that replaces `{options}` in a template."""
        items = [f"{self.label(k, len(options))} {text}".strip() for k, text in enumerate(options)]
        head = f"{self.header}\n" if self.header else ""
        tail = f"\n{self.ending}" if self.ending else ""
        return head + self.separator.join(items) + tail

    def answer(self, options: Sequence[str], answer: str) -> str:
        """Return the answer to train on: the option, or its mark without punctuation."""
        if not self.marks:
            return answer
        mark = self.label(list(options).index(answer), len(options))
        return mark.rstrip(":.- " if "(" in mark else ":.-) ")


PLAIN = OptionStyle()
HEADERS = (
    "OPTIONS:", "Options:", "Choices:", "Possible answers:", "Choose from these:",
    "Pick one of the following:", "The choices are:", "Select an answer.", "Answer choices:",
    "What can be chosen:", "One of these is right:", "Your options are the following.",
    "CHOOSE ONE:", "Available answers:", "Alternatives:", "",
)  # fmt: skip
_BULLETS = ("-", "*", "+", ">", "•", "--", "=>", "·", "")
_WRAPS = ("{})", "({})", "{}.", "[{}]", "{}:", "{} -", "<{}>", "#{}", "({}):", "[{}]:")
_SEPARATORS = ("\n", "; ")
# Triples of `marks`, `wrap` and `separator`.
LISTS = (
    *(("", bullet, "\n") for bullet in _BULLETS),
    ("", "-", "\n\n"),
    *(
        (marks, wrap, separator)
        for marks in ("A", "a", "1", "i")
        for wrap in _WRAPS
        for separator in _SEPARATORS
    ),
)
ENDINGS = ("", "Choose one.", "Which is it?")


def draw_style(draws: Draws) -> OptionStyle:
    """Draw a style of the Collection: the plain block for half of the examples, else any."""
    if draws.below(2):
        return PLAIN
    header = draws.choice(HEADERS)
    marks, wrap, separator = draws.choice(LISTS)
    ending = draws.choice(ENDINGS)
    return OptionStyle(header, marks, wrap, separator, ending)


def _roman(n: int) -> str:
    """Return a number below 90 in lower-case Roman digits."""
    digits = ((50, "l"), (40, "xl"), (10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i"))
    text = ""
    for value, letters in digits:
        text += letters * (n // value)
        n %= value
    return text
