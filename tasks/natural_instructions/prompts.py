"""Tk-Instruct's prompts (arXiv:2204.07705): definition, examples, and the instance's input.

The five encodings are those that Tk-Instruct compares, and mixes in its five-way mode.
"""

import dataclasses
import functools
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ift_jax.sources.demonstrations import PromptLimit, demonstrations_that_fit
from tasks.natural_instructions.files import Example, InstructionTask
from tasks.natural_instructions.options import InstanceOptions


@dataclasses.dataclass(frozen=True)
class NaturalInstructionsOptions(InstanceOptions):
    """How a task file becomes records; see `InstanceOptions` for the caps.

    Attributes:
        definition: Whether the prompt begins with the definition.
        explanations: Whether each example is followed by the reason why its answer is right or
            wrong.
        five_way: Whether each training instance is asked with one of `FIVE_WAYS`, drawn by seed.
        tokenizer: Path of a SentencePiece model or a tokenizer.json. With it a prompt is limited
            to `max_tokens`, which Tk-Instruct does, and not to `max_characters`.
        max_tokens: Longest prompt in tokens, its EOS included.
    """

    definition: bool = True
    explanations: bool = False
    five_way: bool = False
    tokenizer: str = ""
    max_tokens: int = 1024


# Encodings of Tk-Instruct's ablation -> the options that differ from the defaults.
ENCODINGS: Mapping[str, Mapping[str, Any]] = {
    "definition": {"positive_examples": 0},
    "positive2": {"definition": False},
    "definition_positive2": {},
    "definition_positive2_negative2": {"negative_examples": 2},
    "definition_positive2_explanations": {"explanations": True},
}
FIVE_WAYS = tuple(ENCODINGS)
_DEFINITION_POSITIVE2: Mapping[str, Any] = {
    "definition": True,
    "positive_examples": 2,
    "negative_examples": 0,
    "explanations": False,
    "five_way": False,
}


def encoded(options: NaturalInstructionsOptions, encoding: str) -> NaturalInstructionsOptions:
    """Return the options with one of the `ENCODINGS`, or "five_way"."""
    if encoding == "five_way":
        return dataclasses.replace(options, five_way=True)
    changes = {**_DEFINITION_POSITIVE2, **ENCODINGS[encoding]}
    return dataclasses.replace(options, **changes)


def prompt(task: InstructionTask, text: str, options: NaturalInstructionsOptions) -> str:
    """Return Tk-Instruct's prompt: the definition, examples while they fit, the input."""
    definition = f"Definition: {closed(task.definition)}\n\n" if options.definition else ""
    question = f"Now complete the following example -\nInput: {closed(text)}\nOutput: "
    positive = task.positive_examples[: options.positive_examples]
    negative = task.negative_examples[: options.negative_examples]
    examples = [
        _example_texts("Positive", positive, options.explanations),
        _example_texts("Negative", negative, options.explanations),
    ]
    limit = PromptLimit(
        max_characters=options.max_characters,
        tokenizer=options.tokenizer,
        max_tokens=options.max_tokens,
        reserved_tokens=1,  # EOS.
    )
    return prompt_with_examples(definition, examples, question, limit)


def prompt_with_examples(
    head: str, groups: Iterable[Sequence[str]], tail: str, limit: PromptLimit
) -> str:
    """Return a prompt with as many examples between its head and its tail as fit.

    Args:
        head: The text before the examples.
        groups: Kinds of examples. Each kind ends at its first example that does not fit; the next
            kind is tried all the same.
        tail: The text after the examples.
        limit: The longest prompt that examples may lead to.
    """
    for texts in groups:
        head = _with_examples(head, texts, tail, limit)
    return head + tail


def _with_examples(head: str, texts: Sequence[str], tail: str, limit: PromptLimit) -> str:
    def fits(taken: Sequence[str]) -> bool:
        return limit.fits(head + "".join(taken) + tail)

    return head + "".join(demonstrations_that_fit(texts, fits))


@functools.lru_cache(maxsize=8)  # All instances of a task are asked with the same examples.
def _example_texts(kind: str, examples: tuple[Example, ...], explained: bool) -> tuple[str, ...]:
    return tuple(
        f" {kind} Example {number} -\n" + _example_text(example, explained)
        for number, example in enumerate(examples, 1)
    )


def _example_text(example: Example, explained: bool) -> str:
    text = f"Input: {closed(example.input)}\n Output: {closed(example.outputs[0])}\n"
    if explained and example.explanation.strip():
        text += f" Explanation: {closed(example.explanation)}\n"
    return text + "\n"


def closed(text: str) -> str:
    """Strip a text and end it with a period if it has no final punctuation."""
    text = text.strip()
    return text if text and text[-1] in string.punctuation else text + "."
