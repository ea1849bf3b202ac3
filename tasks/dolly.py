"""Dolly 15k (Conover et al. 2023): instructions and answers written by employees of Databricks.

`register(root)` registers `dolly`, all 15,011 rows of databricks/databricks-dolly-15k (or of
databricks-dolly-15k.jsonl in the root), and `dolly_<category>` for each of its eight categories.
If a row has a context, it follows the instruction after an empty line. The published models used a
prompt of their own ("### Instruction:", "### Response:", "### End"); here the run's chat template
writes the prompt. One row in a hundred is "validation"; "all" has every row.
"""

from collections.abc import Mapping

from ift_jax.data.randomness import Draws
from ift_jax.metrics import rouge_l
from ift_jax.sources.register import register_task
from ift_jax.sources.rows import OnlyRows, Row, RowsSource, conversation

CATEGORIES = (
    "brainstorming",
    "classification",
    "closed_qa",
    "creative_writing",
    "general_qa",
    "information_extraction",
    "open_qa",
    "summarization",
)


def register(root: str) -> None:
    """Register `dolly` and a task for each category."""
    register_task("dolly", _source(root, None), metric_fns=[rouge_l])
    for category in CATEGORIES:
        only = OnlyRows("category", (category,), CATEGORIES)
        register_task(f"dolly_{category}", _source(root, only), metric_fns=[rouge_l])


def _source(root: str, only: OnlyRows | None) -> RowsSource:
    return RowsSource(
        "databricks/databricks-dolly-15k",
        _record,
        root,
        names={"train": ("databricks-dolly-15k.jsonl",)},
        keep_out=100,
        only=only,
    )


def _record(row: Row, draws: Draws) -> Mapping[str, str]:
    texts = [row["instruction"], row["context"]]
    prompt = "\n\n".join(text for text in texts if text)
    return conversation(("user", prompt), ("assistant", row["response"]))
