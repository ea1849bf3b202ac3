"""BIG-Bench Hard (Suzgun et al. 2022, arXiv:2210.09261): 27 tasks, three worked examples each.

Description and examples of a task come from the release's `cot-prompts`. The answer is what
follows "the answer is " to the end of the line, without a final period. lm-evaluation-harness
drops the last character whatever it is, so that it reads "Ye" where a model left the period out.
"""

from pathlib import Path

from ift_jax.errors import UserError
from ift_jax.evaluation.benchmarks.base import Benchmark, Item, Scores, Solved
from ift_jax.evaluation.benchmarks.data_files import DataFiles, Row, rows_of
from ift_jax.io.json_reader import read_json_object

_TASKS = (
    "bbh/*.json",
    "bbh/bbh/*.json",
    "BIG-Bench-Hard/bbh/*.json",
    "bbh/*/test-*.parquet",
    "bbh/*/test.jsonl",
)
_PROMPTS = ("bbh/cot-prompts", "BIG-Bench-Hard/cot-prompts")
_CUE = "A: Let's think step by step."
_MARK = "the answer is "


class BigBenchHard(Benchmark):
    """Generates a chain of thought, and compares its answer."""

    name = "bbh"
    source = (
        "github.com/suzgunmirac/BIG-Bench-Hard (the folders bbh and cot-prompts); the Hugging Face "
        "data set lukaemon/bbh has the tasks without the prompts"
    )
    shots = 3
    max_new_tokens = 512
    stops = ("Q:",)
    plain_stops = ("\n\n",)
    joint = "\n"

    def items(self, files: DataFiles, shots: int, *, chat: bool) -> list[Item]:
        items = []
        for path in files.find("bbh: the tasks", _TASKS, self.source):
            task = path.stem if path.suffix == ".json" else path.parent.name
            prompts = files.find_any([f"{folder}/{task}.txt" for folder in _PROMPTS])
            instruction = ""
            solved: tuple[Solved, ...] = ()
            if prompts:
                instruction, solved = _read_prompt(prompts[0])
            if len(solved) < shots:
                expected = " or ".join(f"{folder}/{task}.txt" for folder in _PROMPTS)
                raise UserError(
                    f"--benchmark-data {files.root}: bbh: {task}: {len(solved)} worked examples, "
                    f"{shots} are asked for; expected them in {expected}, published as "
                    f"{self.source}; --few-shot {len(solved)} does without"
                )
            for i, row in enumerate(_rows(path)):
                question = f"Q: {row.text('input')}\n{_CUE}"
                items.append(
                    Item(
                        f"{task}/{i}",
                        question,
                        target=row.text("target").strip(),
                        group=task,
                        instruction=instruction,
                        solved=solved[:shots],
                    )
                )
        return items

    def score(self, item: Item, answer: str) -> Scores:
        return {"exact_match": float(final_answer(answer) == item.target)}


def final_answer(text: str) -> str:
    """Return what follows the first "the answer is ", "[invalid]" if nothing does."""
    _, mark, rest = text.partition(_MARK)
    if not mark:
        return "[invalid]"
    return rest.partition("\n")[0].strip().removesuffix(".").strip()


def _rows(path: Path) -> list[Row]:
    """Return the rows of a task: those of a table, or the release's {"examples": [...]}."""
    if path.suffix != ".json":
        return list(rows_of([path]))
    examples = read_json_object(path).get("examples")
    if not isinstance(examples, list) or not all(isinstance(row, dict) for row in examples):
        raise UserError(f"{path}: field 'examples': expected a list of objects")
    return [Row(f"{path}: example {i}", row) for i, row in enumerate(examples)]


def _read_prompt(path: Path) -> tuple[str, tuple[Solved, ...]]:
    """Return a task's description and worked examples from its file of prompts."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read ({reason})") from error
    _, line, body = text.partition("-----\n")  # In front of it is a warning to crawlers.
    instruction, *parts = (body if line else text).strip().split("\n\nQ: ")
    solved = []
    for number, part in enumerate(parts, start=1):
        question, cue, answer = part.partition(f"\n{_CUE}")
        if not cue:
            raise UserError(f"{path}: example {number}: expected a line {_CUE!r}")
        solved.append(Solved(f"Q: {question}\n{_CUE}", answer.strip()))
    return f"{instruction}\n\n", tuple(solved)
