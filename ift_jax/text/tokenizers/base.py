"""The small interface behind which every tokenizer sits."""

import abc
import re
from collections.abc import Iterable, Mapping, Sequence

BREAK = "\ufdd2"  # A noncharacter: what stands inside a control string that a user typed.


def control_pattern(strings: Iterable[str]) -> re.Pattern[str] | None:
    """A pattern that finds control strings, the longest first; None where there are none.

    One character alone cannot be broken in two: before it, `BREAK` makes it a text.
    """
    ordered = sorted({s for s in strings if s}, key=lambda s: (-len(s), s))
    parts = [f"(?<!{BREAK})" * (len(s) == 1) + re.escape(s) for s in ordered]
    return re.compile(f"({'|'.join(parts)})") if parts else None


class Tokenizer(abc.ABC):
    """Text to ids and back."""

    vocab_size: int  # One more than the largest id.
    pad_id: int  # Never the same as `eos_id`, so that padding can be told from an ending.
    eos_id: int  # Ends a text.
    bos_id: int | None  # Begins a text; None where the tokenizer has none.
    fingerprint: str  # SHA-256 (hex) of the bytes and options that define the tokenizer.
    special_tokens: Mapping[str, int]  # Control strings and their ids.
    strips: Mapping[str, tuple[bool, bool]]  # Those that swallow white space at left or right.
    names: Mapping[str, str]  # The named special tokens, such as {"eos_token": "</s>"}.
    chat_template: str  # The Jinja text that came with it; "" if none.
    n_given: int  # `vocab_size` before tokens were added.
    files: Mapping[str, bytes]  # By name; `load_tokenizer` makes the same of them in a folder.

    def _keep(self, chat_template: str, files: Mapping[str, bytes]) -> None:
        template = {"chat_template.jinja": chat_template.encode()} if chat_template else {}
        self.chat_template, self.files = chat_template, {**files, **template}

    @abc.abstractmethod
    def encode(self, text: str, place: str = "start") -> list[int]:
        """The ids of ordinary text: no BOS or EOS, and control strings are spelt out.

        The place is the "start" of the input, right after a "control" token, or in the middle of
        "text": some tokenizers put a space in front of a text at the first two.
        """

    @abc.abstractmethod
    def encode_with_controls(self, text: str) -> list[int]:
        """The ids of text in which control strings stand for their ids."""

    @abc.abstractmethod
    def decode(self, ids: Sequence[int], *, keep_special: bool = False) -> str:
        """The text of ids; those outside the vocabulary (a model's may be larger) are ignored.

        Control tokens, padding among them, are left out or, with `keep_special`, shown.
        """
