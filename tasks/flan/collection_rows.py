"""Rows of the Flan Collection's other sources: CoT tables, Natural Instructions, T0's prompts."""

import glob
import itertools
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ift_jax.errors import UserError
from ift_jax.io.json_reader import parse_json
from ift_jax.sources.dataset_rows import PlacedRow
from tasks.flan.rows import FlanRows
from tasks.natural_instructions.files import load_task
from tasks.natural_instructions.source import dataset_of

Row = Mapping[str, Any]
Fields = dict[str, Any]


class FileRows(FlanRows):
    """Rows of one file under data.root, whatever the split.

    `path` raises where there is no file, so TFDS is never asked.

    Attributes:
        how_to_get: What the error about a missing file advises.
    """

    how_to_get = "put it there"

    def path(self, split: str) -> str:
        """Return the path of the file.

        Raises:
            UserError: There is no such file.
        """
        path = os.path.join(self.root, self.name)
        if not self.root or not os.path.isfile(path):
            place = path if self.root else f"<data.root>/{self.name}"
            raise UserError(f"{place}: does not exist; {self.how_to_get}")
        return path

    @property
    def available(self) -> bool:
        return bool(self.root) and os.path.isfile(os.path.join(self.root, self.name))


class CotRows(FileRows):
    """A table of the Collection's release: question, answer and rationale, separated by tabs."""

    how_to_get = "get it from flan/v2/cot_data of github.com/google-research/FLAN"

    @property
    def dataset(self) -> str:
        return os.path.basename(self.name).removesuffix("_train.tsv")

    def count_file(self, path: str) -> int:
        with open(path, encoding="utf-8") as file:
            return sum(1 for _ in file)

    def read_file(self, path: str, start: int, stop: int | None) -> Iterator[PlacedRow]:
        with open(path, encoding="utf-8") as file:
            for number, line in itertools.islice(enumerate(file, 1), start, stop):
                cells = line.rstrip("\n").split("\t")
                if len(cells) != 3:
                    raise UserError(
                        f"{path}:{number}: {len(cells)} columns; expected question, answer and "
                        "rationale, separated by tabs"
                    )
                question, answer, rationale = (cell.replace("\\n", "\n").strip() for cell in cells)
                fields = {"question": question, "answer": answer, "rationale": rationale}
                yield PlacedRow(f"{path}:{number}", fields)


class NaturalInstructionsRows(FileRows):
    """The instances of a task file of Super-NaturalInstructions."""

    how_to_get = "get it from tasks/ of github.com/allenai/natural-instructions"

    @property
    def dataset(self) -> str:
        return dataset_of(self.name)

    def count_file(self, path: str) -> int:
        return len(load_task(path).instances)

    def read_file(self, path: str, start: int, stop: int | None) -> Iterator[PlacedRow]:
        task = load_task(path)
        definition = task.definition.strip()
        exemplars = [
            {
                "definition": definition,
                "input": example.input.strip(),
                "answer": example.outputs[0],
            }
            for example in task.positive_examples
        ]
        for number, instance in itertools.islice(enumerate(task.instances), start, stop):
            fields = {
                "definition": definition,
                "input": instance.input.strip(),
                "answer": instance.outputs[0],
                "answers": list(instance.outputs),
                "exemplars": exemplars,
            }
            yield PlacedRow(f"{path}: Instances[{number}]", fields)


class PromptRows(FileRows):
    """JSON lines of complete prompts: {"inputs", "targets"} or {"prompt", "completion"}.

    A line may also have `options`, a list of all answers.
    """

    how_to_get = 'put prompts of P3 there, {"inputs", "targets"} a line, a file a T0 task'


def as_it_is(row: Row) -> Iterator[Fields]:
    """Yield the fields of the row unchanged."""
    yield dict(row)


def cot(row: Row) -> Iterator[Fields]:
    """Read a chain of thought: the rationale ends like a sentence, the answer without a period."""
    if not all(row.values()):
        return
    rationale = row["rationale"]
    if rationale[-1] not in ".!?:\"')":
        rationale += "."
    yield {**row, "answer": row["answer"].rstrip("."), "rationale": rationale}


def prompt(row: Row) -> Iterator[Fields]:
    """Read a prompt of T0, in its own format or in that of GPT-3's finetuning.

    Raises:
        ValueError: The answer is none of the options, so that it has no mark among them.
    """
    inputs, targets = ("inputs", "targets") if "inputs" in row else ("prompt", "completion")
    answer = row[targets].strip().removesuffix("<|endoftext|>").rstrip()
    fields: Fields = {"input": row[inputs].strip(), "answer": answer}
    options = row.get("options")
    if isinstance(options, str):
        options = parse_json(options, "options")
    if options:
        fields["options"] = [option.strip() for option in options]
        if answer not in fields["options"]:
            raise ValueError(f"the answer {answer!r} is none of the options")
    yield fields


def wiki_dialog(row: Row) -> Iterator[Fields]:
    """Read WikiDialog: the last turn is the response, the title of the article the topic."""
    for fields in _dialog(row["utterances"]):
        yield fields | {"topic": row["title"].strip()}


def qrecc(row: Row) -> Iterator[Fields]:
    """Read QReCC: the turns of the context, a question and its answer.

    There is no topic, so templates that name one are not drawn.
    """
    yield from _dialog([*row["context"], row["question"], row["answer"]])


def _dialog(turns: list[str]) -> Iterator[Fields]:
    """Yield a dialog whose last turn, by speaker B, is the response."""
    turns = [" ".join(turn.split()) for turn in turns]
    if len(turns) < 2 or not all(turns):
        return
    speakers = itertools.cycle("AB" if len(turns) % 2 == 0 else "BA")
    lines = [f"{speaker}: {turn}" for speaker, turn in zip(speakers, turns, strict=False)]
    yield {"dialog": "\n".join(lines[:-1]), "response": lines[-1]}


def find_files(root: str, folder: str, pattern: str) -> dict[str, str]:
    """Return task name -> path under the root, for the files of a folder that match a pattern."""
    if not root:
        return {}
    found = {}
    for path in sorted(glob.glob(os.path.join(glob.escape(root), folder, pattern))):
        stem = os.path.basename(path).split(".")[0]
        found[re.sub(r"[^\w.]", "_", stem)] = os.path.relpath(path, root)
    return found
