"""The prompts of Self-Instruct, and how what a model writes after them is read.

The method is that of arXiv:2212.10560; the texts are ours.
"""

import re
from collections.abc import Sequence

from ift_jax.synthesis.filters import Draft
from ift_jax.synthesis.seeds import Instance, SeedTask

VERSION = 1  # Changes with any text here: a data set is not continued with other prompts.
NEW_TASKS = 8  # Instructions that a prompt asks for.
SHOWN_INSTANCES = 2  # Each task that is shown with instances has at most so many.
_NO_INPUT = "none"

_LIST = (
    "What follows is a varied list of tasks for an assistant that reads and writes text. Each is "
    "complete in itself, and no two of them ask for the same kind of thing.\n\n"
)
_CLASSIFY = (
    "For each task, decide whether its answer is always one of a few fixed labels, such as yes and "
    "no, or is a text that has to be written.\n\n"
)
_INPUT_FIRST = (
    "Each task comes with examples of its use. An example has an input, or none where the task "
    "says everything, and the output that an expert would give.\n\n"
)
_OUTPUT_FIRST = (
    "Each task asks for a label. Its examples name a label first, and then an input for which that "
    "label is right.\n\n"
)
_SINGLE_STAGE = (
    "What follows are {n} varied tasks for an assistant that reads and writes text. Each has an "
    "instruction of one or two sentences, an input with made-up but concrete content (none where "
    "the instruction says everything), and the output that an expert would give. Verbs, topics and "
    "forms differ from task to task.\n\n"
)


def one_line(text: str) -> str:
    """Return a text with single spaces, as a list has it."""
    return " ".join(text.split())


# --- Instructions ---


def instructions_prompt(shown: Sequence[str]) -> str:
    """Return a prompt that asks for more instructions like those that it lists."""
    lines = [f"Task {i}: {one_line(instruction)}\n" for i, instruction in enumerate(shown, 1)]
    return f"{_LIST}{''.join(lines)}Task {len(shown) + 1}:"


def instructions_stop(n_shown: int) -> tuple[str, ...]:
    """Return what ends the answer to `instructions_prompt`."""
    return ("\n\n", f"Task {n_shown + NEW_TASKS + 1}:")


def read_instructions(text: str) -> list[str]:
    """Return the instructions in an answer to `instructions_prompt`, each as one line."""
    return [one_line(part).rstrip(":") for part in re.split(r"\n\s*Task \d+\s*:", text)]


# --- Classification or not ---

CLASSIFICATION_STOP = ("\n",)
CLASSIFICATION_TOKENS = 3


def classification_prompt(shown: Sequence[SeedTask], instruction: str) -> str:
    """Return a prompt that asks whether an instruction is a classification task."""
    parts = [
        f"Task: {one_line(seed.instruction)}\nFixed labels: "
        f"{'yes' if seed.is_classification else 'no'}\n\n"
        for seed in shown
    ]
    return f"{_CLASSIFY}{''.join(parts)}Task: {one_line(instruction)}\nFixed labels:"


def read_classification(text: str) -> bool | None:
    """Return the answer to `classification_prompt`; None if it is neither yes nor no."""
    word = text.strip().lower()
    if word.startswith("yes"):
        return True
    return False if word.startswith("no") else None


# --- Instances ---

INSTANCES_STOP = ("\nTask:", "\nTask ")


def input_first_prompt(shown: Sequence[SeedTask], instruction: str) -> str:
    """Return a prompt that asks for inputs and then their outputs."""
    parts = []
    for seed in shown:
        parts.append(f"Task: {one_line(seed.instruction)}\n")
        for i, instance in enumerate(seed.instances[:SHOWN_INSTANCES], 1):
            parts.append(f"Example {i}\n{_input_and_output(instance)}")
        parts.append("\n")
    return f"{_INPUT_FIRST}{''.join(parts)}Task: {one_line(instruction)}\nExample 1\n"


def read_input_first(text: str) -> list[Draft]:
    """Return the instances in an answer to `input_first_prompt`."""
    return [_draft(part) for part in re.split(r"(?m)^Example \d+[ \t:.]*$", text)]


def output_first_prompt(shown: Sequence[SeedTask], instruction: str) -> str:
    """Return a prompt that asks for labels and then inputs that they are right for."""
    parts = []
    for seed in shown:
        parts.append(f"Task: {one_line(seed.instruction)}\n")
        for instance in seed.instances[:SHOWN_INSTANCES]:
            given = instance.input or _NO_INPUT
            parts.append(f"Label: {instance.output}\nInput: {given}\n")
        parts.append("\n")
    return f"{_OUTPUT_FIRST}{''.join(parts)}Task: {one_line(instruction)}\nLabel:"


def read_output_first(text: str) -> list[Draft]:
    """Return the instances in an answer to `output_first_prompt`."""
    drafts = []
    for part in re.split(r"(?m)^Label:", text):
        label, found, given = part.partition("\nInput:")
        drafts.append(Draft(_input(given), label.strip() if found else None, part.strip()))
    return drafts


def _input_and_output(instance: Instance) -> str:
    return f"Input: {instance.input or _NO_INPUT}\nOutput: {instance.output}\n"


def _draft(text: str) -> Draft:
    """Read an instance that has its input first, or only an output."""
    found = re.match(r"(?s)\s*(?:Input:(.*?))?(?:^|\n)\s*Output:(.*)", text)
    if not found:
        return Draft("", None, text.strip())
    return Draft(_input(found[1] or ""), found[2].strip(), text.strip())


def _input(text: str) -> str:
    text = text.strip()
    return "" if text.rstrip(".").lower() in (_NO_INPUT, "n/a") else text


# --- Everything in one stage ---


def single_stage_prompt(shown: Sequence[SeedTask], n_tasks: int) -> str:
    """Return a prompt that asks for tasks with their instances, `n_tasks` with those shown."""
    parts = [
        f"Task {i}\nInstruction: {one_line(seed.instruction)}\n"
        f"{_input_and_output(seed.instances[0])}\n"
        for i, seed in enumerate(shown, 1)
    ]
    begun = f"Task {len(shown) + 1}\nInstruction:"
    return f"{_SINGLE_STAGE.format(n=n_tasks)}{''.join(parts)}{begun}"


def single_stage_stop(n_tasks: int) -> tuple[str, ...]:
    """Return what ends the answer to `single_stage_prompt`."""
    return (f"\nTask {n_tasks + 1}\n",)


def read_single_stage(text: str) -> list[tuple[str, Draft]]:
    """Return the instructions in an answer to `single_stage_prompt`, each with its instance."""
    tasks = []
    for part in re.split(r"(?m)^Task \d+[ \t:.]*\n\s*Instruction:", text):
        instruction, found, rest = part.partition("\n")
        tasks.append((one_line(instruction), _draft(rest)._replace(text=part.strip())))
    return tasks
