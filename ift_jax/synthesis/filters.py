"""What is not kept of the instructions and instances that a model wrote, and why.

The rules are those of Self-Instruct's release (arXiv:2212.10560, section 2.3 and its code).
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ift_jax.synthesis.seeds import Instance

FEWEST_WORDS = 4
MOST_WORDS = 150
MOST_INSTANCES = 5
# What a model of text cannot see, draw, or reach.
BANNED = (
    *("image", "images", "picture", "pictures", "graph", "graphs", "file", "files", "map", "maps"),
    *("draw", "plot", "go to"),
)
_BANNED = re.compile(rf"\b({'|'.join(BANNED)})\b", re.IGNORECASE)
_SECOND_OUTPUT = re.compile(r"(?m)^\s*(Input|Output):")
_PROGRAM = re.compile(r"write a program\b", re.IGNORECASE)

CUT_OFF = "cut off at the most tokens"
EMPTY = "empty"
NO_ROOM = "the prompt leaves the model no room"
SIMILAR = "similar to a kept one"
TOO_SHORT = f"fewer than {FEWEST_WORDS} words"
TOO_LONG = f"more than {MOST_WORDS} words"
BANNED_WORD = "a word such as image, graph, file, draw"
PROGRAM = 'begins with "Write a program"'
PUNCTUATION = "begins with punctuation"
NOT_ENGLISH = "begins with a character that is not English"
NO_OUTPUT = "without an output"
SECOND_OUTPUT = "a second output"  # The model lost the form; not one of the release's rules.
SAME_AS_INPUT = "output is the input"
COLON = "input or output ends with a colon"
REPEATED = "repeats an instance"
CONTRADICTED = "same input with different outputs"
TOO_MANY = f"after the first {MOST_INSTANCES}"


class Draft(NamedTuple):
    """An instance as it was read from a model's text; `output` is None if none was found."""

    input: str
    output: str | None
    text: str


def fault_of_instruction(instruction: str) -> str:
    """Return why an instruction is not kept, whatever the others are; "" if it is."""
    n_words = len(instruction.split())
    if not instruction:
        return EMPTY
    if not instruction[0].isascii():
        return NOT_ENGLISH
    if not instruction[0].isalnum():
        return PUNCTUATION
    if n_words < FEWEST_WORDS:
        return TOO_SHORT
    if n_words > MOST_WORDS:
        return TOO_LONG
    if _PROGRAM.match(instruction):
        return PROGRAM
    if _BANNED.search(instruction):
        return BANNED_WORD
    return ""


def checked_instances(
    drafts: Sequence[Draft], *, cut_off: bool
) -> tuple[list[Instance], list[tuple[str, str]]]:
    """Separate the instances of one instruction that are kept from those that are not.

    Args:
        drafts: In the order in which the model wrote them.
        cut_off: Whether the last one may be incomplete.

    Returns:
        The instances that are kept, and the reason and the text of each other one.
    """
    valid: list[tuple[Instance, str]] = []
    rejected = []
    for i, draft in enumerate(drafts):
        if cut_off and i == len(drafts) - 1:
            fault = CUT_OFF
        else:
            fault = TOO_MANY if i >= MOST_INSTANCES else _fault_of_draft(draft)
        if fault:
            rejected.append((fault, draft.text))
        else:
            valid.append((Instance(draft.input, draft.output or ""), draft.text))
    outputs = Counter(instance.input for instance in {instance for instance, _ in valid})
    kept: list[Instance] = []
    for instance, text in valid:
        if outputs[instance.input] > 1:
            rejected.append((CONTRADICTED, text))
        elif instance in kept:
            rejected.append((REPEATED, text))
        else:
            kept.append(instance)
    return kept, rejected


def _fault_of_draft(draft: Draft) -> str:
    if draft.output is None:
        return NO_OUTPUT
    if not draft.output:
        return EMPTY
    if draft.output == draft.input:
        return SAME_AS_INPUT
    if _SECOND_OUTPUT.search(draft.output):
        return SECOND_OUTPUT
    if draft.input.endswith(":") or draft.output.endswith(":"):
        return COLON
    return ""
