"""What ends an answer, and the text that an answer has so far."""

import dataclasses
import itertools
import re
from collections.abc import Callable, Sequence

# White space at the end, and characters whose bytes are incomplete (they decode to U+FFFD).
_UNDECIDED_END = re.compile(r"[\s\ufffd]+$")


@dataclasses.dataclass(frozen=True)
class Stops:
    """Tokens and strings that end an answer.

    Strings are looked for in the decoded text, so they are found across the borders of tokens. The
    answer is what stands before the first of them.
    """

    ids: tuple[int, ...] = ()
    strings: tuple[str, ...] = ()
    decode: Callable[[list[int]], str] | None = None  # Returns the text without control tokens.

    def __post_init__(self) -> None:
        if "" in self.strings:
            raise ValueError("a stop string must not be empty")
        if self.strings and self.decode is None:
            raise ValueError("stop strings need a function that decodes ids")

    def text_before_stop(self, text: str) -> str | None:
        """The text before the first stop string, or None if it has none."""
        found = [text.find(string) for string in self.strings if string in text]
        return text[: min(found)] if found else None

    def tokens_until_stop_string(self, ids: list[int], checked: int) -> int | None:
        """How many tokens it takes until the text holds a stop string, or None if it never does.

        The first `checked` tokens are known to hold none.
        """
        if not self.strings or self.text_before_stop(self._decode(ids)) is None:
            return None
        for n in range(checked + 1, len(ids)):
            if self.text_before_stop(self._decode(ids[:n])) is not None:
                return n
        return len(ids)

    def text(self, ids: Sequence[int]) -> str:
        """The answer before what ends it, without surrounding white space."""
        return self.raw_text(ids).strip()

    def raw_text(self, ids: Sequence[int]) -> str:
        """The answer before what ends it, white space included."""
        before_stop_id = itertools.takewhile(lambda token: token not in self.ids, ids)
        text = self._decode(list(before_stop_id))
        before_stop_string = self.text_before_stop(text)
        return text if before_stop_string is None else before_stop_string

    def stopped(self, ids: Sequence[int]) -> bool:
        """Whether a stop token or string ended the answer, and not its length."""
        if any(token in self.ids for token in ids):
            return True
        return bool(self.strings) and self.text_before_stop(self._decode(list(ids))) is not None

    def with_more(self, ids: Sequence[int], strings: Sequence[str]) -> "Stops":
        """These stops and others."""
        if not ids and not strings:
            return self
        return Stops((*self.ids, *ids), (*self.strings, *strings), self.decode)

    def _decode(self, ids: list[int]) -> str:
        assert self.decode is not None
        return self.decode(ids)


class TextStream:
    """The text of a growing answer, piece by piece; the pieces together are `Stops.text`.

    Held back until it is decided are white space at the end, characters whose bytes are
    incomplete, and the beginning of what may become a stop string.
    """

    def __init__(self, stops: Stops, *, strip: bool = True):
        """Begin with no text.

        Args:
            stops: What ends the answer.
            strip: Whether the text is `Stops.text`, or else `Stops.raw_text`.
        """
        self._stops = stops
        self._text = stops.text if strip else stops.raw_text
        self.shown = ""

    def update(self, ids: Sequence[int], *, final: bool = False) -> str:
        """Return the new text.

        Args:
            ids: All tokens so far.
            final: Whether nothing comes after them.
        """
        text = self._text(ids)
        if not final:
            n_held = self._length_of_possible_stop(text)
            text = _UNDECIDED_END.sub("", text[: len(text) - n_held])
            if not text.startswith(self.shown):  # Incomplete bytes changed how the last ones look.
                return ""
        new = text[len(self.shown) :]
        self.shown = text
        return new

    def _length_of_possible_stop(self, text: str) -> int:
        """How many characters at the end may be the beginning of a stop string."""
        longest = 0
        for string in self._stops.strings:
            for n in range(1, len(string)):
                if text.endswith(string[:n]):
                    longest = max(longest, n)
        return longest
