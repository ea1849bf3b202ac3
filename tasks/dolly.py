"""Dolly 15k (Conover et al. 2023): instructions and answers written by Databricks' employees.

`register(root)` registers `dolly`, all 15,011 rows of databricks/databricks-dolly-15k (also found
as databricks-dolly-15k.jsonl in the root), and `dolly_<category>` for each of its eight categories.
A row's context, where there is one, follows the instruction after an empty line. The published
models wrote it into a prompt of their own ("### Instruction:", "### Response:", "### End"); here
the run's template does that. One row in a hundred is "validation"; "all" has every row.
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
    """Registers `dolly` and a task a category."""
    for category in ("", *CATEGORIES):
        source = RowsSource(
            "databricks/databricks-dolly-15k",
            _record,
            root,
            names={"train": ("databricks-dolly-15k.jsonl",)},
            keep_out=100,
            only=OnlyRows("category", (category,), CATEGORIES) if category else None,
        )
        register_task("_".join(filter(None, ("dolly", category))), source, metric_fns=[rouge_l])


def _record(row: Row, draws: Draws) -> Mapping[str, str]:
    prompt = "\n\n".join(text for text in (row["instruction"], row["context"]) if text)
    return conversation(("user", prompt), ("assistant", row["response"]))
