"""GSM8K (Cobbe et al. 2021, arXiv:2110.14168): grade-school problems, solved step by step.

Eight solved examples by default, the number of Wei et al. (arXiv:2201.11903): the first rows of
the training split, without the release's calculator annotations (`<<48/2=24>>`). Prompts and both
metrics are those of lm-evaluation-harness's task `gsm8k` (5-shot there; `--few-shot 5`).
"""

import re

from ift_jax.errors import UserError
from ift_jax.evaluation.benchmarks.base import Benchmark, Item, Scores, Solved
from ift_jax.evaluation.benchmarks.data_files import DataFiles, Row, rows_of

_ANNOTATION = re.compile(r"<<[^<>]*>>")
_STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_IGNORED = re.compile(r",|\$")
_BEFORE_MARK = re.compile(r"(?s).*#### ")
INVALID = "[invalid]"


class Gsm8k(Benchmark):
    """Generates a solution, and compares its final number."""

    name = "gsm8k"
    source = (
        "github.com/openai/grade-school-math (grade_school_math/data) or the Hugging Face data set "
        "openai/gsm8k"
    )
    shots = 8
    max_new_tokens = 400
    stops = ("Question:",)

    def items(self, files: DataFiles, shots: int, *, chat: bool) -> list[Item]:
        solved: tuple[Solved, ...] = ()
        if shots:
            train = files.find("gsm8k: the training problems", _patterns("train"), self.source)
            rows = list(rows_of(train, shots))
            if len(rows) < shots:
                raise UserError(f"{train[0]}: {len(rows)} problems; expected {shots} to show")
            solved = tuple(Solved(_question(row), _solution(row)) for row in rows)
        test = files.find("gsm8k: the test problems", _patterns("test"), self.source)
        return [
            Item(str(i), _question(row), target=row.text("answer"), solved=solved)
            for i, row in enumerate(rows_of(test))
        ]

    def score(self, item: Item, answer: str) -> Scores:
        wanted = comparable(item.target)
        return {
            "strict_match": float(comparable(strict_answer(answer)) == wanted),
            "flexible_extract": float(comparable(flexible_answer(answer)) == wanted),
        }


def _patterns(split: str) -> tuple[str, ...]:
    return (
        f"gsm8k/{split}.jsonl",
        f"gsm8k/main/{split}-*.parquet",
        f"gsm8k/{split}-*.parquet",
        f"grade-school-math/grade_school_math/data/{split}.jsonl",
    )


def _question(row: Row) -> str:
    return f"Question: {row.text('question')}\nAnswer:"


def _solution(row: Row) -> str:
    return _ANNOTATION.sub("", row.text("answer"))


def strict_answer(text: str) -> str:
    """Return the number after the first `#### `, "[invalid]" if there is none."""
    found = _STRICT.search(text)
    return found[1].strip() if found else INVALID


def flexible_answer(text: str) -> str:
    """Return the last thing that looks like a number, "[invalid]" if there is none."""
    found = [match[0] for match in _FLEXIBLE.finditer(text)]
    return found[-1].strip() if found else INVALID


def comparable(text: str) -> str:
    """Return a number or a solution without what does not count."""
    text = _BEFORE_MARK.sub("", _IGNORED.sub("", text))
    return re.sub(r"\.$", "", text).lower()
