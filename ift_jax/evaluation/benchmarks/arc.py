"""ARC (Clark et al. 2018, arXiv:1803.05457): grade-school science, easy and challenge.

Choices are ranked by the log-likelihood of their texts after the question alone, as in
lm-evaluation-harness. `--few-shot 25` puts the first training problems in front.
"""

from collections.abc import Sequence

from ift_jax.errors import UserError
from ift_jax.evaluation.benchmarks.base import Benchmark, Item, Scores, Solved, normalized_scores
from ift_jax.evaluation.benchmarks.data_files import DataFiles, Row, rows_of


class _Arc(Benchmark):
    """Ranks the texts of the choices."""

    folder: str  # Its folder in both publications.
    source = "allenai.org/data/arc (ARC-V1-Feb2018-2) or the Hugging Face data set allenai/ai2_arc"

    def items(self, files: DataFiles, shots: int, *, chat: bool) -> list[Item]:
        solved: tuple[Solved, ...] = ()
        if shots:
            paths = files.find(
                f"{self.name}: the split train", self._patterns("train"), self.source
            )
            problems = [_problem(row) for row in rows_of(paths, shots)]
            if len(problems) < shots:
                raise UserError(f"{paths[0]}: {len(problems)} problems; expected {shots} to show")
            solved = tuple(Solved(item.question, item.choices[item.target]) for item in problems)
        paths = files.find(f"{self.name}: the split test", self._patterns("test"), self.source)
        return [_problem(row, solved) for row in rows_of(paths)]

    def _patterns(self, split: str) -> tuple[str, ...]:
        release = f"{self.folder}/{self.folder}-{split.capitalize()}.jsonl"
        return (
            f"arc/{release}",
            f"ARC-V1-Feb2018-2/{release}",
            f"arc/{self.folder}/{split}-*.parquet",
            f"ai2_arc/{self.folder}/{split}-*.parquet",
            f"arc/{self.folder}/{split}.jsonl",
        )

    def score(self, item: Item, answer: str) -> Scores:
        raise AssertionError("the choices are ranked")

    def score_choices(self, item: Item, log_likelihoods: Sequence[float]) -> Scores:
        return normalized_scores(item, log_likelihoods)


class ArcEasy(_Arc):
    """The easy set."""

    name = "arc_easy"
    folder = "ARC-Easy"


class ArcChallenge(_Arc):
    """The challenge set."""

    name = "arc_challenge"
    folder = "ARC-Challenge"


def _problem(row: Row, solved: tuple[Solved, ...] = ()) -> Item:
    """Read a problem of the release, or of the Hugging Face data set."""
    if isinstance(row.fields.get("question"), dict):
        part = row.part("question")
        question = part.text("stem")
        listed = part.fields.get("choices")
        if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
            raise UserError(f"{part.place}: field 'choices': expected a list of objects")
        each = [Row(f"{part.place}: choice {i}", choice) for i, choice in enumerate(listed)]
        labels = [choice.text("label") for choice in each]
        texts = [choice.text("text") for choice in each]
    else:
        question = row.text("question")
        labels = row.part("choices").texts("label")
        texts = row.part("choices").texts("text")
    key = row.text("answerKey")
    if key not in labels or len(labels) != len(texts):
        raise UserError(f"{row.place}: field 'answerKey': expected one of {labels}, found {key!r}")
    return Item(
        row.text("id"),
        f"Question: {question}\nAnswer:",
        target=labels.index(key),
        solved=solved,
        choices=tuple(texts),
    )
