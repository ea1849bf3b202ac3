"""Tk-Instruct's prompts (arXiv:2204.07705): what a task file's instances are asked with.

A prompt is the definition, demonstrations one by one while they fit, and the input. The five
encodings are those that Tk-Instruct compares, and mixes in its five-way mode.
"""

import dataclasses
import string
from collections.abc import Callable, Mapping
from typing import Any

from ift_jax.sources.demonstrations import PromptLimit
from tasks.natural_instructions.files import Example, InstructionTask


@dataclasses.dataclass(frozen=True)
class NaturalInstructionsOptions:
    """How a task file becomes records.

    Attributes:
      train_cap: training instances a task, chosen by seed (Tk-Instruct: 100).
      validation_cap: instances of a trained task that training never sees: a tenth of the
        task's instances, this many at the most.
      test_cap: instances of a held-out task, the first ones, as the official evaluation does.
      positive_examples: demonstrations in a prompt, at the most.
      max_characters: a demonstration is left out where the prompt would become longer. (Tk-
        Instruct counts 1,024 tokens of its model; a source knows no tokenizer unless
        `tokenizer` names one.)
      seed: of the choice of instances.
      definition: whether the prompt begins with the definition.
      negative_examples: wrong answers that are shown after the demonstrations, at the most.
      explanations: whether an example is followed by why its answer is right or wrong.
      five_way: each training instance is asked with one of `FIVE_WAYS`, drawn by seed.
      tokenizer: a SentencePiece model or a tokenizer.json: `max_tokens` of it bound the
        prompt then, with its EOS, instead of `max_characters`.
      max_tokens: the encoder's length.
    """

    train_cap: int = 100
    validation_cap: int = 20
    test_cap: int = 100
    positive_examples: int = 2
    max_characters: int = 4000
    seed: int = 0
    definition: bool = True
    negative_examples: int = 0
    explanations: bool = False
    five_way: bool = False
    tokenizer: str = ""
    max_tokens: int = 1024


# The encodings of Tk-Instruct's ablation, by what a prompt shows.
ENCODINGS: Mapping[str, Mapping[str, Any]] = {
    "definition": {"positive_examples": 0},
    "positive2": {"definition": False},
    "definition_positive2": {},
    "definition_positive2_negative2": {"negative_examples": 2},
    "definition_positive2_explanations": {"explanations": True},
}
FIVE_WAYS = tuple(ENCODINGS)


def encoded(options: NaturalInstructionsOptions, encoding: str) -> NaturalInstructionsOptions:
    """Returns the options with one of the `ENCODINGS`, or "five_way"."""
    if encoding == "five_way":
        return dataclasses.replace(options, five_way=True)
    plain = {"definition": True, "positive_examples": 2, "negative_examples": 0}
    plain |= {"explanations": False, "five_way": False}
    return dataclasses.replace(options, **(plain | dict(ENCODINGS[encoding])))


def prompt(task: InstructionTask, text: str, options: NaturalInstructionsOptions) -> str:
    """Returns Tk-Instruct's prompt: definition, demonstrations while they fit, the input."""
    definition = f"Definition: {closed(task.definition)}\n\n" if options.definition else ""
    question = f"Now complete the following example -\nInput: {closed(text)}\nOutput: "
    fits = _measure(options)
    examples = ""
    for kind, shown in (
        ("Positive", task.positive_examples[: options.positive_examples]),
        ("Negative", task.negative_examples[: options.negative_examples]),
    ):
        for k, example in enumerate(shown, 1):
            more = f" {kind} Example {k} -\n" + _shown(example, options.explanations)
            if not fits(definition + examples + more + question):
                break
            examples += more
    return definition + examples + question


def _shown(example: Example, explained: bool) -> str:
    text = f"Input: {closed(example.input)}\n Output: {closed(example.outputs[0])}\n"
    if explained and example.explanation.strip():
        text += f" Explanation: {closed(example.explanation)}\n"
    return text + "\n"


def _measure(options: NaturalInstructionsOptions) -> Callable[[str], bool]:
    limit = PromptLimit(
        options.max_characters, options.tokenizer, options.max_tokens, reserved_tokens=1
    )
    return limit.fits


def closed(text: str) -> str:
    """Strips the text and ends it with a full stop where it has no final punctuation."""
    text = text.strip()
    return text if text and text[-1] in string.punctuation else text + "."
