"""Rows of the Flan Collection's other sources: CoT tables, Natural Instructions, T0's prompts."""

import glob
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ift_jax.errors import UserError
from ift_jax.sources.dataset_rows import PlacedRow
from tasks.flan.source import Rows
from tasks.natural_instructions.source import dataset_of, load_task

Row = Mapping[str, Any]
Fields = dict[str, Any]


class FileRows(Rows):
    """Rows of one file under data.root, whatever the split."""

    def path(self, split: str) -> str:
        path = os.path.join(self.root, self.name)
        if not self.root or not os.path.isfile(path):
            place = path if self.root else f"<data.root>/{self.name}"
            raise UserError(f"{place}: does not exist; {self.how_to_get}")
        return path

    how_to_get = "put it there"

    @property
    def available(self) -> bool:
        return bool(self.root) and os.path.isfile(os.path.join(self.root, self.name))


class CotRows(FileRows):
    """A table of the Collection's release: question, answer, rationale, separated by tabs."""

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
                names = ("question", "answer", "rationale")
                texts = (cell.replace("\\n", "\n").strip() for cell in cells)
                yield PlacedRow(f"{path}:{number}", dict(zip(names, texts, strict=True)))


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
        examples = [
            {
                "definition": task.definition.strip(),
                "input": e.input.strip(),
                "answer": e.outputs[0],
            }
            for e in task.positive_examples
        ]
        for k, instance in itertools.islice(enumerate(task.instances), start, stop):
            yield PlacedRow(
                f"{path}: Instances[{k}]",
                {
                    "definition": task.definition.strip(),
                    "input": instance.input.strip(),
                    "answer": instance.outputs[0],
                    "answers": list(instance.outputs),
                    "exemplars": examples,
                },
            )


class PromptRows(FileRows):
    """JSON lines of whole prompts: {"inputs", "targets"} or {"prompt", "completion"}.

    `options`, a list of all answers, may stand beside them.
    """

    how_to_get = 'put prompts of P3 there, {"inputs", "targets"} a line, a file a T0 task'


def as_it_is(row: Row) -> Iterator[Fields]:
    """The row's own fields."""
    yield dict(row)


def cot(row: Row) -> Iterator[Fields]:
    """A chain of thought: a sentence to its end, and an answer without a full stop."""
    if all(row.values()):
        why = row["rationale"]
        why += "" if why[-1] in ".!?:\"')" else "."
        yield {**row, "answer": row["answer"].rstrip("."), "rationale": why}


def prompt(row: Row) -> Iterator[Fields]:
    """A prompt of T0."""
    inputs, targets = ("inputs", "targets") if "inputs" in row else ("prompt", "completion")
    answer = row[targets].strip().removesuffix("<|endoftext|>").rstrip()  # Of GPT-3's format.
    fields: Fields = {"input": row[inputs].strip(), "answer": answer}
    options = row.get("options")
    if isinstance(options, str):
        options = json.loads(options)
    yield fields | ({"options": options} if options else {})


def wiki_dialog(row: Row) -> Iterator[Fields]:
    """WikiDialog: the last turn is the response, the article's title the topic."""
    for fields in _dialog(row["utterances"]):
        yield fields | {"topic": row["title"].strip()}


def qrecc(row: Row) -> Iterator[Fields]:
    """QReCC: the context's turns, a question, its answer; templates with a topic are left out."""
    yield from _dialog([*row["context"], row["question"], row["answer"]])


def _dialog(turns: list[str]) -> Iterator[Fields]:
    turns = [" ".join(turn.split()) for turn in turns]
    if len(turns) > 1 and all(turns):
        speakers = itertools.cycle("AB" if len(turns) % 2 == 0 else "BA")
        lines = [f"{name}: {turn}" for name, turn in zip(speakers, turns, strict=False)]
        yield {"dialog": "\n".join(lines[:-1]), "response": lines[-1]}


def files(root: str, folder: str, pattern: str) -> dict[str, str]:
    """Task name -> path under the root, of the files in a folder that match."""
    found = {}
    for path in sorted(glob.glob(os.path.join(glob.escape(root), folder, pattern))) if root else ():
        name = re.sub(r"[^\w.]", "_", os.path.basename(path).split(".")[0])
        found[name] = os.path.relpath(path, root)
    return found
