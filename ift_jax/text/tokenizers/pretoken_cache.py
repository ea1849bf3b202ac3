"""A cache of pre-tokens and their ids, which makes byte-level BPE five times as fast.

`tokenizers` keeps offsets and normalized forms of all that it encodes, and spends most of its time
on that. Byte-level BPE never merges across the edges of the pieces that its pre-tokenizer makes. No
piece of the pre-tokenizers below reaches from a visible ASCII character to a space after it, or
from an ASCII letter or digit to a punctuation mark, or depends on what follows it. So a text may be
split before each single space between visible characters, and between a letter or digit and a
punctuation mark: the ids of the parts, joined, are those of the whole text.
"""

import array
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import tokenizers

from ift_jax.text.control_strings import control_pattern

PUNCTUATION = r"[!-/:-@\[-`{-~]"
PRETOKEN = re.compile(
    rf" ?[A-Za-z0-9]++(?= [!-~]|{PUNCTUATION}|\Z)| ?[!-~]++(?= [!-~]|\Z)"
    r"|.+?(?:(?<=[!-~])(?= [!-~])|\Z)",
    re.DOTALL,
)
_LETTERS = re.compile(r" ?[A-Za-z]+")  # One piece of every pre-tokenizer below.
_BYTE_LEVEL_SPACE = "\u0120"  # How byte-level BPE writes a space; ASCII letters are themselves.
_MAX_ENTRIES = 1 << 17  # About 40 MB.
_MAX_CHARACTERS = 64  # A longer pre-token is not remembered.

_CONTRACTION_OR_WORD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_PUNCTUATION_OR_SPACE = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _split_step(number: str) -> dict[str, Any]:
    """Return the `Split` step of a `tokenizer.json` that splits numbers by this pattern."""
    pattern = _CONTRACTION_OR_WORD + number + _PUNCTUATION_OR_SPACE
    return {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }


# Known pre-tokenizers besides ByteLevel's own (GPT-2's), by the most digits in one piece:
# Qwen 2's (1), and that of GPT-4 and Llama 3 (3).
SPLITS: Mapping[int, Mapping[str, Any]] = {
    1: _split_step(r"\p{N}"),
    3: _split_step(r"\p{N}{1,3}"),
}


class PretokenCache:
    """Encodes the pre-tokens of a text, for a tokenizer that `cuts_at_spaces`."""

    def __init__(
        self,
        definition: Mapping[str, Any],
        encode_whole: Callable[[str], list[int]],
        model: tokenizers.models.Model,
    ):
        """Start an empty cache.

        Args:
            definition: The fields of the `tokenizer.json`.
            encode_whole: Encodes a text by that definition, with control strings spelled out.
            model: Its byte-level BPE, which encodes a word of letters in less than half the time.
        """
        self._encode_whole = encode_whole
        self._model = model
        self._ids = IdsByPretoken(self._encode_pretoken)
        # These are found in a text before it is split, and may hold a space.
        self._added = control_pattern(_ordinary_added_tokens(definition))

    def encode(self, text: str) -> list[int]:
        """Encode a text."""
        if self._added and self._added.search(text):
            return self._encode_whole(text)
        return self._ids.join(PRETOKEN.findall(text))

    def _encode_pretoken(self, pretoken: str) -> list[int]:
        if not _LETTERS.fullmatch(pretoken):
            return self._encode_whole(pretoken)
        piece = pretoken.replace(" ", _BYTE_LEVEL_SPACE)
        return [token.id for token in self._model.tokenize(piece)]


class IdsByPretoken(dict[str, bytes]):
    """The ids of pre-tokens, as the bytes of int32; one that is missing is encoded.

    A list would keep each id as an object of its own somewhere in memory, which takes a quarter
    longer to join.
    """

    def __init__(self, encode_whole: Callable[[str], list[int]]):
        super().__init__()
        self._encode_whole = encode_whole

    def join(self, pretokens: Iterable[str]) -> list[int]:
        """Return the ids of pre-tokens, one after another."""
        return array.array("i", b"".join(map(self.__getitem__, pretokens))).tolist()

    def __missing__(self, pretoken: str) -> bytes:
        ids = array.array("i", self._encode_whole(pretoken)).tobytes()
        if len(pretoken) <= _MAX_CHARACTERS:
            if len(self) >= _MAX_ENTRIES:
                self.clear()
            self[pretoken] = ids
        return ids


def cuts_at_spaces(definition: Mapping[str, Any]) -> bool:
    """Whether the ids of a text are known to be those of its pre-tokens, joined.

    Args:
        definition: The fields of a `tokenizer.json`.
    """
    model = definition["model"]
    if model.get("type") != "BPE" or model.get("dropout"):
        return False
    # NFC changes nothing at an ASCII character unless a combining one follows it.
    normalizer = definition.get("normalizer") or {"type": "NFC"}
    if normalizer["type"] != "NFC":
        return False
    if not all(map(str.isascii, _ordinary_added_tokens(definition))):
        return False
    return _cuts_known_pieces(definition.get("pre_tokenizer") or {})


def _cuts_known_pieces(pre_tokenizer: Mapping[str, Any]) -> bool:
    """Whether a pre-tokenizer is GPT-2's or one of `SPLITS`, perhaps with digits split before."""
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    others = [step for step in steps if step not in SPLITS.values()]
    if any(step.get("type") not in ("ByteLevel", "Digits") for step in others):
        return False
    if any(step.get("add_prefix_space", False) for step in others):
        return False
    has_known_split = len(others) < len(steps)
    byte_levels = [step for step in others if step["type"] == "ByteLevel"]
    return has_known_split or any(step.get("use_regex", True) for step in byte_levels)


def _ordinary_added_tokens(definition: Mapping[str, Any]) -> list[str]:
    """Return the strings of added tokens that are not special."""
    return [token["content"] for token in definition["added_tokens"] if not token["special"]]
