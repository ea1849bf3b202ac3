"""MT-Bench (Zheng et al. 2023, arXiv:2306.05685): 80 conversations of two turns, for a judge.

Answers are written as FastChat's `model_answer/<model>.jsonl`, which `gen_judgment.py` reads.
Temperatures by category and the length of an answer are FastChat's.
"""

import json
import time
from collections.abc import Mapping, Sequence

from ift_jax.errors import UserError
from ift_jax.evaluation.benchmarks.base import Answered, Item, UnscoredBenchmark
from ift_jax.evaluation.benchmarks.data_files import DataFiles, rows_of
from ift_jax.io.files import json_digest

_TEMPERATURES = {"writing": 0.7, "roleplay": 0.7, "stem": 0.1, "humanities": 0.1}
_FILES = (
    "mt_bench/question.jsonl",
    "FastChat/fastchat/llm_judge/data/mt_bench/question.jsonl",
)


class MtBench(UnscoredBenchmark):
    """Answers both turns of each conversation."""

    name = "mt_bench"
    source = "github.com/lm-sys/FastChat (fastchat/llm_judge/data/mt_bench/question.jsonl)"
    max_new_tokens = 1024
    needs_chat = True

    def items(self, files: DataFiles, shots: int, *, chat: bool) -> list[Item]:
        if shots:
            raise UserError("--few-shot: mt_bench has no solved examples")
        items = []
        for row in rows_of(files.find("mt_bench: the questions", _FILES, self.source)):
            first, *others = row.texts("turns")
            category = row.text("category")
            items.append(
                Item(
                    str(row.number("question_id")),
                    first,
                    group=category,
                    follow_ups=tuple(others),
                    temperature=_TEMPERATURES.get(category, 0.0),
                )
            )
        return items

    def outputs(self, answered: Sequence[Answered], model_name: str) -> Mapping[str, bytes]:
        lines = []
        for item, answers in answered:
            digest = json_digest([model_name, item.id, list(answers)])
            line = {
                "question_id": int(item.id),
                "answer_id": digest[:22],
                "model_id": model_name,
                "choices": [{"index": 0, "turns": list(answers)}],
                "tstamp": time.time(),
            }
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
        return {f"model_answer/{model_name}.jsonl": "".join(lines).encode()}
