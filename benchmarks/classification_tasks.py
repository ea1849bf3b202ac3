"""Published tasks for the figures of docs/transfer.md: sixteen to train, two held out.

    --config.data.modules="('benchmarks.classification_tasks',)" --config.data.root=FOLDER
    --config.data.mixture=classification_train
    --config.data.heldout_mixture=classification_heldout

FOLDER holds files as their authors' repositories have them: `bbh/` (BIG-Bench Hard), `flan/cot/`
(FLAN's tables of questions, answers, and explanations), `natural_instructions/`, `t0/` (T0's
prompts and completions), and `classification/` with `sentence_polarity.pos.txt` and `.neg.txt`
(Pang and Lee 2005) and `clinc150_small_val.json` (Larson et al. 2019, lists of a text and its
intent). Every held-out question names its choices, which are ranked.
"""

import csv
import functools
import json
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ift_jax.data.randomness import Draws
from ift_jax.metrics import exact_match
from ift_jax.sources.base import PythonDataSource
from ift_jax.sources.register import register_mixture, register_task

HELD_OUT = "classification_heldout"
TRAINED = "classification_train"
_TESTED = 200  # The last examples of a held-out task.
_UNSEEN = 10  # The last examples of a trained task.
_CHOICES = 4  # An intent is offered among so many.
_END = "<|endoftext|>"  # T0's completions end in it.

Question = tuple[str, str, list[str]]  # The prompt, the answer, and the choices.


class HeldOut(PythonDataSource):
    """The questions of a held-out task; the split "train" has the solved examples of a prompt."""

    fields = ("inputs", "targets", "choices")

    def __init__(self, name: str, root: str) -> None:
        self.cluster = name
        self._name = name
        self._root = root
        super().__init__(("train", "test"))

    def files(self, split: str) -> list[str]:
        names = {
            "polarity": ("sentence_polarity.neg.txt", "sentence_polarity.pos.txt"),
            "intent": ("clinc150_small_val.json",),
        }[self._name]
        folder = os.path.join(os.path.abspath(self._root), "classification")
        return [os.path.join(folder, name) for name in names]

    def items(self, split: str) -> Sequence[Question]:
        everything = self._polarity() if self._name == "polarity" else self._intents()
        # A seeded order, because the files are sorted by label.
        everything = Draws("order", self._name).sample(everything, len(everything))
        return everything[:-_TESTED] if split == "train" else everything[-_TESTED:]

    def _polarity(self) -> list[Question]:
        labels = ("negative", "positive")
        asked = "Is this sentence from a film review positive or negative?\n\n{}"
        found: list[Question] = []
        for label, path in zip(labels, self.files("test"), strict=True):
            with open(path, encoding="utf-8") as file:
                found += [(asked.format(line.strip()), label, list(labels)) for line in file]
        return found

    def _intents(self) -> list[Question]:
        with open(self.files("test")[0], encoding="utf-8") as file:
            rows: list[list[str]] = json.load(file)["val"]
        intents = sorted({intent for _, intent in rows})
        return [self._intent(text, intent, intents) for text, intent in rows]

    def _intent(self, text: str, intent: str, intents: Sequence[str]) -> Question:
        d = Draws("choices", text)
        wrong = d.sample([other for other in intents if other != intent], _CHOICES - 1)
        choices = [name.replace("_", " ") for name in d.sample([intent, *wrong], _CHOICES)]
        prompt = f"What does the user want: {', '.join(choices)}?\n\n{text}"
        return prompt, intent.replace("_", " "), choices

    def render(self, item: Any, split: str, index: int, seed: int) -> dict[str, str]:
        prompt, answer, choices = item
        return {"inputs": prompt, "targets": answer, "choices": json.dumps(choices)}


Pair = tuple[str, str]  # The prompt and the answer.


def _t0(path: str) -> list[Pair]:
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [(row["prompt"].strip(), row["completion"].removesuffix(_END).strip()) for row in rows]


def _cot(path: str) -> list[Pair]:
    """Return questions and answers; the third column, the explanation, is left out."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [(row[0].replace("\\n", "\n").strip(), row[1].strip()) for row in rows]


def _bbh(path: str) -> list[Pair]:
    with open(path, encoding="utf-8") as file:
        return [(row["input"], row["target"]) for row in json.load(file)["examples"]]


def _instances(path: str, question: str) -> list[Pair]:
    """Return the instances of a file of Natural Instructions, under a short question of ours."""
    with open(path, encoding="utf-8") as file:
        rows = json.load(file)["Instances"]
    return [(f"{question}\n\n{row['input'].strip()}", row["output"][0].strip()) for row in rows]


class Trained(NamedTuple):
    """Where a trained task's questions are.

    Attributes:
        cluster: What it is about.
        path: Its file, in the data folder.
        read: Returns the questions of a file.
    """

    cluster: str
    path: str
    read: Callable[[str], list[Pair]]


_NI = "natural_instructions"
_PLAUSIBLE = "Which completion is the most plausible?"
_ODD = "Which word does not belong to the others?"
_BLANK = "Which of the two things fills the blank (_)?"
TRAINED_TASKS = {
    "commonsense_qa": Trained("commonsense", "t0/commonsense_qa_question_answering.jsonl", _t0),
    "ecqa": Trained("commonsense", "flan/cot/ecqa_train.tsv", _cot),
    "sensemaking": Trained("commonsense", "flan/cot/sensemaking_train.tsv", _cot),
    "codah": Trained(
        "plausibility",
        f"{_NI}/tasks_early_schema/task156_codah_classification_adversarial.json",
        functools.partial(_instances, question=_PLAUSIBLE),
    ),
    "sports": Trained("plausibility", "bbh/sports_understanding.json", _bbh),
    "creak": Trained("facts", "flan/cot/creak_train.tsv", _cot),
    "strategyqa": Trained("facts", "flan/cot/strategyqa_train.tsv", _cot),
    "qasc": Trained("science", "flan/cot/qasc_train.tsv", _cot),
    "qasc_is_correct": Trained("science", "t0/qasc_is_correct_1.jsonl", _t0),
    "quartz": Trained("science", "t0/quartz_answer_question_based_on.jsonl", _t0),
    "odd_man_out": Trained(
        "words",
        f"{_NI}/tasks_early_schema/task141_odd-man-out_classification_category.json",
        functools.partial(_instances, question=_ODD),
    ),
    "winogrande": Trained(
        "coreference",
        f"{_NI}/v1_schema/subtask033_winogrande_answer_generation.json",
        functools.partial(_instances, question=_BLANK),
    ),
    "boolean_expressions": Trained("logic", "bbh/boolean_expressions.json", _bbh),
    "navigate": Trained("logic", "bbh/navigate.json", _bbh),
    "object_counting": Trained("counting", "bbh/object_counting.json", _bbh),
    "common_gen": Trained("sentences", "t0/common_gen_Given_concepts_type_1.jsonl", _t0),
}


class TrainedTask(PythonDataSource):
    """The questions of a trained task, in a seeded order; the last ten are "validation"."""

    fields = ("inputs", "targets")

    def __init__(self, name: str, root: str) -> None:
        self.cluster = TRAINED_TASKS[name].cluster
        self._name = name
        self._root = root
        super().__init__(("train", "validation"))

    def files(self, split: str) -> list[str]:
        return [os.path.join(os.path.abspath(self._root), TRAINED_TASKS[self._name].path)]

    def options(self, split: str) -> str:
        return self._name

    def items(self, split: str) -> Sequence[Pair]:
        everything = TRAINED_TASKS[self._name].read(self.files(split)[0])
        everything = Draws("order", self._name).sample(everything, len(everything))
        return everything[:-_UNSEEN] if split == "train" else everything[-_UNSEEN:]

    def render(self, item: Any, split: str, index: int, seed: int) -> dict[str, str]:
        prompt, answer = item
        return {"inputs": prompt, "targets": answer}


def register(root: str) -> None:
    """Register a task for each set, and the mixtures of those trained and of those held out."""
    held_out = ["polarity", "intent"]
    for name in held_out:
        register_task(f"classification_{name}", HeldOut(name, root), metric_fns=[exact_match])
    register_mixture(HELD_OUT, [(f"classification_{name}", 1.0) for name in held_out])
    for name in TRAINED_TASKS:
        register_task(f"trained_{name}", TrainedTask(name, root), metric_fns=[exact_match])
    register_mixture(TRAINED, [(f"trained_{name}", 1.0) for name in TRAINED_TASKS])
