"""GSM8K (Cobbe et al. 2021, arXiv:2110.14168): grade-school problems and worked solutions.

`register(root)` registers two tasks: `gsm8k`, whose solutions are free of the release's calculator
annotations (`<<48/2=24>>`), and `gsm8k_calculator`, with them. Both end their targets with the
release's line `#### <number>`. Splits: "train" and "test" as published (7,473 and 1,319), but one
training problem of twenty is "validation"; "all" is the whole published training set. Rows come
from <root>/gsm8k/{train,test}.jsonl (the repository grade-school-math, or any folder of the two
files that is called gsm8k).
"""

import re
from collections.abc import Mapping

from ift_jax.data.randomness import Draws
from ift_jax.sources.register import register_task
from ift_jax.sources.rows import Row, RowsSource
from tasks.gsm8k.metrics import final_answer

_ANNOTATION = re.compile(r"<<[^<>]*>>")


def register(root: str) -> None:
    """Registers `gsm8k` and `gsm8k_calculator`."""
    for name, render in (("gsm8k", _plain), ("gsm8k_calculator", _annotated)):
        source = RowsSource(
            "gsm8k",
            render,
            root,
            splits={"train": "train", "test": "test"},
            hub=False,
            fields=("inputs", "targets"),
            keep_out=20,
        )
        register_task(name, source, metric_fns=[final_answer])


def _annotated(row: Row, draws: Draws) -> Mapping[str, str]:
    return {"inputs": row["question"].strip(), "targets": row["answer"].strip()}


def _plain(row: Row, draws: Draws) -> Mapping[str, str]:
    record = _annotated(row, draws)
    return {**record, "targets": _ANNOTATION.sub("", record["targets"])}
