"""AlpacaEval (Li et al. 2023): 805 instructions, for a judge.

Answers are written as `model_outputs.json`, which `alpaca_eval --model_outputs` reads.
"""

import json
from collections.abc import Mapping, Sequence

from ift_jax.errors import UserError
from ift_jax.evaluation.benchmarks.base import Answered, Item, UnscoredBenchmark
from ift_jax.evaluation.benchmarks.data_files import DataFiles, rows_of

_FILES = (
    "alpaca_eval/alpaca_eval.json",
    "alpaca_eval/alpaca_eval_gpt4_baseline.json",
    "alpaca_eval/eval-*.parquet",
)


class AlpacaEval(UnscoredBenchmark):
    """Answers each instruction."""

    name = "alpaca_eval"
    source = "the Hugging Face data set tatsu-lab/alpaca_eval (alpaca_eval.json)"
    max_new_tokens = 2048

    def items(self, files: DataFiles, shots: int, *, chat: bool) -> list[Item]:
        if shots:
            raise UserError("--few-shot: alpaca_eval has no solved examples")
        rows = rows_of(files.find("alpaca_eval: the instructions", _FILES, self.source))
        return [
            Item(
                str(i),
                row.text("instruction"),
                target={
                    name: value
                    for name in ("dataset", "datasplit")
                    if isinstance(value := row.fields.get(name), str)
                },
            )
            for i, row in enumerate(rows)
        ]

    def outputs(self, answered: Sequence[Answered], model_name: str) -> Mapping[str, bytes]:
        outputs = [
            {
                "instruction": item.question,
                "output": answers[0],
                "generator": model_name,
                **item.target,
            }
            for item, answers in answered
        ]
        return {"model_outputs.json": json.dumps(outputs, indent=1, ensure_ascii=False).encode()}
