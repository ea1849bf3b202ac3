"""Alpaca (Taori et al. 2023): 52,002 instructions, written and answered by text-davinci-003.

`register(root)` registers `alpaca` from tatsu-lab/alpaca, or from alpaca_data.json in the root, the
one file of the repository. A row has an instruction, an input (often empty) and an output. The
record of a row with an input is {system: instruction, user: input, assistant: output}, that of a
row without one {user: instruction, assistant: output}. The chat template `alpaca` writes the first
as the published prompt with "### Input:" and the second as the one without it; any other chat
template works too.

One row in a hundred is "validation"; "all" has every row. Rows with an empty output are kept, as in
the original: the model learns to stop at once.
"""

from collections.abc import Mapping

from ift_jax.data.randomness import Draws
from ift_jax.metrics import rouge_l
from ift_jax.sources.register import register_task
from ift_jax.sources.rows import Row, RowsSource, conversation

RELEASED = 52_002


def register(root: str) -> None:
    """Register `alpaca`."""
    names = {"train": ("alpaca_data.json",)}
    source = RowsSource("tatsu-lab/alpaca", _record, root, names=names, keep_out=100)
    register_task("alpaca", source, metric_fns=[rouge_l])


def _record(row: Row, draws: Draws) -> Mapping[str, str]:
    answer = ("assistant", row["output"])
    if not row["input"]:
        return conversation(("user", row["instruction"]), answer)
    return conversation(("system", row["instruction"]), ("user", row["input"]), answer)
