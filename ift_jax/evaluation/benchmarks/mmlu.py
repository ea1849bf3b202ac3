"""MMLU (Hendrycks et al. 2020, arXiv:2009.03300): multiple choice in 57 subjects.

Five solved examples from the split dev; the letters A to D are ranked by their log-likelihood, as
in the release and in lm-evaluation-harness.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ift_jax.errors import UserError
from ift_jax.evaluation.benchmarks.base import Benchmark, Item, Scores, Solved
from ift_jax.evaluation.benchmarks.data_files import DataFiles, csv_rows_of, rows_of

_LETTERS = ("A", "B", "C", "D")
_NO_SUBJECT = ("all", "auxiliary_train")  # Folders of the Hugging Face data set.


class _Problem(NamedTuple):
    question: str
    gold: int


class Mmlu(Benchmark):
    """Ranks four letters."""

    name = "mmlu"
    source = (
        "people.eecs.berkeley.edu/~hendrycks/data.tar (data/dev and data/test) or the Hugging Face "
        "data set cais/mmlu"
    )
    shots = 5

    def items(self, files: DataFiles, shots: int, *, chat: bool) -> list[Item]:
        items = []
        test = _by_subject(files.find("mmlu: the split test", _patterns("test"), self.source))
        dev = {}
        if shots:
            dev = _by_subject(files.find("mmlu: the split dev", _patterns("dev"), self.source))
        for subject, path in sorted(test.items()):
            solved = []
            if shots:
                if subject not in dev:
                    raise UserError(f"mmlu: {subject}: no file of the split dev beside {path}")
                problems = list(_problems(dev[subject]))[:shots]
                if len(problems) < shots:
                    raise UserError(
                        f"{dev[subject]}: {len(problems)} problems; expected {shots} to show"
                    )
                solved = [Solved(problem.question, _LETTERS[problem.gold]) for problem in problems]
            title = subject.replace("_", " ")
            head = f"The following are multiple choice questions (with answers) about {title}.\n\n"
            items += [
                Item(
                    f"{subject}/{i}",
                    problem.question,
                    target=problem.gold,
                    group=subject,
                    instruction=head,
                    solved=tuple(solved),
                    choices=_LETTERS,
                )
                for i, problem in enumerate(_problems(path))
            ]
        return items

    def score(self, item: Item, answer: str) -> Scores:
        raise AssertionError("the choices are ranked")


def _patterns(split: str) -> tuple[str, ...]:
    return (
        f"mmlu/{split}/*_{split}.csv",
        f"mmlu/data/{split}/*_{split}.csv",
        f"mmlu/*/{split}-*.parquet",
        f"mmlu/*/{split}.jsonl",
    )


def _by_subject(paths: list[Path]) -> dict[str, Path]:
    """Return the file of each subject."""
    named = [
        (path.stem.rpartition("_")[0] if path.suffix == ".csv" else path.parent.name, path)
        for path in paths
    ]
    return {subject: path for subject, path in named if subject not in _NO_SUBJECT}


def _problems(path: Path) -> Iterator[_Problem]:
    if path.suffix == ".csv":
        for place, (question, *choices, letter) in csv_rows_of(path, 6):
            if letter not in _LETTERS:
                raise UserError(f"{place}: expected a letter from A to D, found {letter!r}")
            yield _Problem(_question(question, choices), _LETTERS.index(letter))
        return
    for row in rows_of([path]):
        choices = row.texts("choices", 4)
        gold = row.number("answer")
        if len(choices) != 4 or not 0 <= gold < 4:
            raise UserError(f"{row.place}: expected four choices and an answer from 0 to 3")
        yield _Problem(_question(row.text("question"), choices), gold)


def _question(question: str, choices: list[str]) -> str:
    lines = [f"{letter}. {choice}" for letter, choice in zip(_LETTERS, choices, strict=True)]
    return "\n".join([question.strip(), *lines, "Answer:"])
