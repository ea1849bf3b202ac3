"""HellaSwag (Zellers et al. 2019, arXiv:1905.07830): which ending follows a description.

The endings are ranked by their log-likelihood, on the validation split: labels of the test split
are not published. Texts are cleaned of WikiHow's brackets as in lm-evaluation-harness.
`--few-shot 10` puts the first training examples in front.
"""

import re
from collections.abc import Sequence

from ift_jax.errors import UserError
from ift_jax.evaluation.benchmarks.base import Benchmark, Item, Scores, Solved, normalized_scores
from ift_jax.evaluation.benchmarks.data_files import DataFiles, Row, rows_of

_BRACKETS = re.compile(r"\[.*?\]")


class HellaSwag(Benchmark):
    """Ranks four endings."""

    name = "hellaswag"
    source = (
        "github.com/rowanz/hellaswag (data/hellaswag_val.jsonl) or the Hugging Face data set "
        "Rowan/hellaswag"
    )

    def items(self, files: DataFiles, shots: int, *, chat: bool) -> list[Item]:
        solved: tuple[Solved, ...] = ()
        if shots:
            train = files.find("hellaswag: the split train", _patterns("train"), self.source)
            shown = [_problem(i, row) for i, row in enumerate(rows_of(train, shots))]
            if len(shown) < shots:
                raise UserError(f"{train[0]}: {len(shown)} examples; expected {shots} to show")
            solved = tuple(Solved(item.question, item.choices[item.target]) for item in shown)
        paths = files.find("hellaswag: the split validation", _patterns("validation"), self.source)
        return [_problem(i, row, solved) for i, row in enumerate(rows_of(paths))]

    def score(self, item: Item, answer: str) -> Scores:
        raise AssertionError("the endings are ranked")

    def score_choices(self, item: Item, log_likelihoods: Sequence[float]) -> Scores:
        return normalized_scores(item, log_likelihoods)


def _patterns(split: str) -> tuple[str, ...]:
    short = {"validation": "val"}.get(split, split)
    return (
        f"hellaswag/hellaswag_{short}.jsonl",
        f"hellaswag/data/hellaswag_{short}.jsonl",
        f"hellaswag/data/{split}-*.parquet",
        f"hellaswag/{split}-*.parquet",
        f"hellaswag/{split}.jsonl",
    )


def cleaned(text: str) -> str:
    """Return a text without the artifacts of WikiHow's pages."""
    text = text.strip().replace(" [title]", ". ")
    return _BRACKETS.sub("", text).replace("  ", " ")


def _problem(index: int, row: Row, solved: tuple[Solved, ...] = ()) -> Item:
    endings = row.texts("endings", 2)
    label = row.number("label")
    if not 0 <= label < len(endings):
        raise UserError(f"{row.place}: field 'label': expected 0 to {len(endings) - 1}")
    context = f"{row.text('ctx_a')} {row.text('ctx_b').capitalize()}"
    return Item(
        str(index),
        cleaned(f"{row.text('activity_label')}: {context}"),
        target=label,
        solved=solved,
        choices=tuple(cleaned(ending) for ending in endings),
    )
