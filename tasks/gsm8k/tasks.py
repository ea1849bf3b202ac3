"""GSM8K (Cobbe et al. 2021, arXiv:2110.14168): grade-school problems and worked solutions.

`register(root)` registers two tasks: `gsm8k`, whose solutions are free of the release's calculator
annotations (`<<48/2=24>>`), and `gsm8k_calculator`, whose solutions keep them. The targets of both
end with the release's line `#### <number>`. The splits "train" and "test" are those of the release
(7,473 and 1,319 problems), except that one training problem of twenty is "validation" instead;
"all" is the whole published training set. Rows are read from <root>/gsm8k/{train,test}.jsonl, the
files of the repository grade-school-math.
"""

import re
from collections.abc import Mapping

from ift_jax.data.randomness import Draws
from ift_jax.sources.register import register_task
from ift_jax.sources.rows import Row, RowsSource
from tasks.gsm8k.metrics import final_answer

_ANNOTATION = re.compile(r"<<[^<>]*>>")
_ONE_IN_VALIDATION = 20


def register(root: str) -> None:
    """Register `gsm8k` and `gsm8k_calculator`."""
    for name, render in (("gsm8k", _plain), ("gsm8k_calculator", _annotated)):
        source = RowsSource(
            "gsm8k",
            render,
            root,
            splits={"train": "train", "test": "test"},
            hub=False,
            fields=("inputs", "targets"),
            keep_out=_ONE_IN_VALIDATION,
        )
        register_task(name, source, metric_fns=[final_answer])


def _annotated(row: Row, draws: Draws) -> Mapping[str, str]:
    return {"inputs": row["question"].strip(), "targets": row["answer"].strip()}


def _plain(row: Row, draws: Draws) -> Mapping[str, str]:
    record = _annotated(row, draws)
    return {**record, "targets": _ANNOTATION.sub("", record["targets"])}
