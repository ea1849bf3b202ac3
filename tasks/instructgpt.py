"""The supervised stage of InstructGPT (Ouyang et al. 2022, arXiv:2203.02155).

The paper's data was never released. `register(root)` registers `instructgpt` for your own data, in
<root>/instructgpt/train.jsonl and validation.jsonl (or .parquet), whose rows have "prompt" and
"completion" (or "demonstration"). The paper had 12,725 prompts for training (11,295 by labelers,
1,430 by customers) and 1,653 for validation, according to its table, which we have not checked
again.

The paper leaves out prompts of more than 1,000 tokens and demonstrations of more than 1,000, for a
context of 2,000. A source knows no tokenizer, so four characters count as a token here, about the
ratio of GPT-2's tokenizer on English. A warning says how many rows are left out. The exact limit of
the context is the run's (`data.max_length`, which counts the dropped examples of each task). The
paper also split the prompts by user and kept at most 200 of each user; do this beforehand if your
rows name the users.
"""

import logging
from collections.abc import Mapping, Sequence

from ift_jax.data.randomness import Draws
from ift_jax.metrics import rouge_l
from ift_jax.sources.register import register_task
from ift_jax.sources.rows import Row, RowsSource

MAX_TOKENS = 1_000  # Longest prompt, and longest demonstration.
CHARACTERS_PER_TOKEN = 4


def register(root: str) -> None:
    """Register `instructgpt`."""
    source = DemonstrationsSource(
        "instructgpt",
        _record,
        root,
        splits={"train": "train", "validation": "validation"},
        hub=False,
        fields=("inputs", "targets"),
        expand=_within_lengths,
    )
    register_task("instructgpt", source, metric_fns=[rouge_l])


class DemonstrationsSource(RowsSource):
    """Rows of prompts and demonstrations; warns how many rows the length rules leave out."""

    def num_input_examples(self, split: str) -> int:
        if split in self._counts:
            return self._counts[split]
        rows = sum(1 for _ in self.rows(split))
        kept = super().num_input_examples(split)
        if kept < rows:
            logging.warning(
                "instructgpt: %d of %d rows of %r are left out: a prompt or a demonstration "
                "of over %d tokens (%d characters)",
                rows - kept,
                rows,
                split,
                MAX_TOKENS,
                MAX_TOKENS * CHARACTERS_PER_TOKEN,
            )
        return kept


def _answer(row: Row) -> str:
    return row["demonstration"] if "demonstration" in row else row["completion"]


def _within_lengths(row: Row) -> Sequence[Row]:
    longest = max(len(row["prompt"]), len(_answer(row)))
    return [row] if longest <= MAX_TOKENS * CHARACTERS_PER_TOKEN else []


def _record(row: Row, draws: Draws) -> Mapping[str, str]:
    return {"inputs": row["prompt"], "targets": _answer(row)}
