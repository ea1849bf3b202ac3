"""Words whose ids are remembered: byte-level BPE at a fifth of its time.

`tokenizers` keeps offsets and normalised forms of all that it encodes, and needs most of its time
for that. Byte-level BPE joins nothing over the edges of the pieces that its pre-tokenizer makes,
and no piece of those named here reaches from a visible ASCII character to a space behind it, or
from an ASCII letter or digit to a sign, or depends on what follows: so a text may be cut before
each single space between visible characters, and between a letter or digit and a sign, and the ids
of the parts, as the tokenizer itself gives them, are those of the whole.
"""

import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any

from ift_jax.text.tokenizers.base import control_pattern

_SIGN = r"[!-/:-@\[-`{-~]"
_PART = re.compile(
    rf" ?[A-Za-z0-9]++(?= [!-~]|{_SIGN}|\Z)| ?[!-~]++(?= [!-~]|\Z)"
    r"|.+?(?:(?<=[!-~])(?= [!-~])|\Z)",
    re.DOTALL,
)
_MOST = 1 << 17  # Parts that are remembered: about 40 MB.
_LONGEST = 64  # Characters of one.
_SUFFIX = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_PREFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
# Besides ByteLevel's own (GPT-2's), by the digits at a time: Qwen 2's, and GPT-4's and Llama 3's.
SPLITS: Mapping[int, Mapping[str, Any]] = {
    n: {
        "type": "Split",
        "pattern": {"Regex": _PREFIX + digits + _SUFFIX},
        "behavior": "Isolated",
        "invert": False,
    }
    for n, digits in {1: r"\p{N}", 3: r"\p{N}{1,3}"}.items()
}


class Words:
    """Encodes by the parts of a text, for a tokenizer that `cuts_at_spaces`."""

    def __init__(self, definition: Mapping[str, Any], whole: Callable[[str], list[int]]):
        """`whole` encodes a text, with special tokens spelt out, by the `definition`."""
        self._whole = whole
        self._known = _Known(whole)
        # Other added tokens are found in a text before it is cut, and may hold a space.
        self._added = control_pattern(_added(definition))

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        if self._added and self._added.search(text):
            return self._whole(text)
        parts = map(self._known.__getitem__, _PART.findall(text))
        return list(itertools.chain.from_iterable(parts))


class _Known(dict[str, list[int]]):
    """The ids of parts; those that are not there are encoded."""

    def __init__(self, whole: Callable[[str], list[int]]):
        super().__init__()
        self._whole = whole

    def __missing__(self, part: str) -> list[int]:
        ids = self._whole(part)
        if len(part) <= _LONGEST:
            if len(self) >= _MOST:
                self.clear()
            self[part] = ids
        return ids


def cuts_at_spaces(definition: Mapping[str, Any]) -> bool:
    """Whether a `tokenizer.json` is known to give a text's ids part by part."""
    model, outer = definition["model"], definition.get("pre_tokenizer") or {}
    parts = outer.get("pretokenizers", [outer])
    others = [part for part in parts if part not in SPLITS.values()]
    return (
        model.get("type") == "BPE"
        and not model.get("dropout")
        # NFC changes nothing at an ASCII character that no combining one follows.
        and (definition.get("normalizer") or {"type": "NFC"})["type"] == "NFC"
        and all(map(str.isascii, _added(definition)))
        and {part.get("type") for part in others} <= {"ByteLevel", "Digits"}
        and not any(part.get("add_prefix_space", False) for part in others)
        and (
            len(others) < len(parts)
            or any(part.get("use_regex", True) for part in others if part["type"] == "ByteLevel")
        )
    )


def _added(definition: Mapping[str, Any]) -> list[str]:
    return [t["content"] for t in definition["added_tokens"] if not t["special"]]
