"""Records for tests: text-to-text pairs, and generated conversations of every awkward kind."""

import random

from ift_jax.text.records import Message, Record
from ift_jax.text.rows.parse_record import parse_record

_BITS = (
    "Hello", "the answer is 42", " ", "  ", "\n", "\n\n", "\t", "é", "e\u0301",
    "😀", "👩\u200d👩\u200d👧",
    "你好", "שלום", "<|im_end|>", "<|im_start|>", "<|im_start|>assistant\n", "<|assistant|>",
    "<|user|>\n", "<|system|>", "</s>", "<s>", "<unk>", "<pad>", "<|endoftext|>", "{bos}", "{eos}",
    "\u2581", "<0x0A>", "\r\n", "assistant", "user\n", ".", "a\u00a0b", "\ufffd", "{", "%s", "\x00",
)  # fmt: skip
_WHOLE = ("", " ", "\n", "  \n ", "<|im_end|>", "<|im_end|>\n", "<|assistant|>\n", "</s>", "ok")


def text_record(inputs, targets, **more):
    return parse_record({"inputs": inputs, "targets": targets, **more}, "t:0")


def content(draw: random.Random) -> str:
    if draw.random() < 0.25:
        return draw.choice(_WHOLE)
    return draw.choice(("", " ")).join(draw.choice(_BITS) for _ in range(draw.randint(1, 8)))


def conversations(seed: int, count: int, *, tools: bool) -> list[Record]:
    """Generates records with one to four rounds, some weighted, some ending in a user's turn.

    The same seed gives the same records.
    """
    draw = random.Random(seed)
    records = []
    for _ in range(count):
        messages = []
        if draw.random() < 0.4:
            messages.append(Message("system", content(draw)))
        for _ in range(draw.choice((1, 1, 2, 3, 4))):
            messages.append(Message("user", content(draw)))
            messages.append(Message("assistant", content(draw), _weight(draw)))
            while tools and draw.random() < 0.2:
                messages.append(Message("tool", content(draw)))
                messages.append(Message("assistant", content(draw), _weight(draw)))
        if draw.random() < 0.1:
            messages.append(Message("user", content(draw)))
        records.append(Record(tuple(messages), where=f"generated:{len(records)}"))
    return records


def _weight(draw: random.Random) -> float | None:
    return draw.choice((None, None, None, 0.0, 0.5, 2.0))
