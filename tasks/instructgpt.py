"""InstructGPT's supervised stage (Ouyang et al. 2022, arXiv:2203.02155): prompts, demonstrations.

Its data was never released; `register(root)` registers `instructgpt` for your own, in
<root>/instructgpt/train.jsonl and validation.jsonl (or .parquet), whose rows have "prompt" and
"completion" (or "demonstration"). The paper's had 12,725 prompts (11,295 by labelers, 1,430 by
customers) and 1,653 for validation [the paper's table, not read again].

Length rules of the paper: prompts over 1,000 tokens are left out, and so are demonstrations over
1,000, in a context of 2,000. A source knows no tokenizer, so a token is taken to be four characters
here (GPT-2's tokenizer on English); what is left out is counted, in a warning. The exact bound of
the context is the run's (`data.max_length`, counted by task). The paper also split by user and kept
at most 200 prompts of one; do that before, where your rows say whose they are.
"""

import logging
from collections.abc import Mapping, Sequence

from ift_jax.data.randomness import Draws
from ift_jax.metrics import rouge_l
from ift_jax.sources.register import register_task
from ift_jax.sources.rows import Row, RowsSource

MAX_TOKENS = 1_000  # Of a prompt, and of a demonstration.
CHARACTERS_PER_TOKEN = 4


def register(root: str) -> None:
    """Registers `instructgpt`."""
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
    """Rows of prompts and demonstrations; says how many the length rules leave out."""

    def num_input_examples(self, split: str) -> int:
        if split not in self._counts:
            rows, kept = sum(1 for _ in self.rows(split)), super().num_input_examples(split)
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
        return super().num_input_examples(split)


def _answer(row: Row) -> str:
    return row["demonstration"] if "demonstration" in row else row["completion"]


def _within_lengths(row: Row) -> Sequence[Row]:
    most = MAX_TOKENS * CHARACTERS_PER_TOKEN
    return [row] if max(len(row["prompt"]), len(_answer(row))) <= most else []


def _record(row: Row, draws: Draws) -> Mapping[str, str]:
    return {"inputs": row["prompt"], "targets": _answer(row)}
