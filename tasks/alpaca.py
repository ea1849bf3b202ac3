"""Alpaca (Taori et al. 2023): 52,002 instructions written and answered by text-davinci-003.

`register(root)` registers `alpaca` from tatsu-lab/alpaca, or from the repository's one file
alpaca_data.json in the root. A row has an instruction, an input (often empty) and an output.
With an input the record is {system: instruction, user: input, assistant: output}, without
{user: instruction, assistant: output}: the run's template `alpaca` writes the former as the
published prompt with "### Input:" and the latter as the one without; any other chat template works
too. One row in a hundred is "validation"; "all" has every row. Rows with an empty output are kept,
as the original did: the model learns to stop at once.
"""

from collections.abc import Mapping

from ift_jax.data.randomness import Draws
from ift_jax.metrics import rouge_l
from ift_jax.sources.register import register_task
from ift_jax.sources.rows import Row, RowsSource, conversation

RELEASED = 52_002


def register(root: str) -> None:
    """Registers `alpaca`."""
    names = {"train": ("alpaca_data.json",)}
    source = RowsSource("tatsu-lab/alpaca", _record, root, names=names, keep_out=100)
    register_task("alpaca", source, metric_fns=[rouge_l])


def _record(row: Row, draws: Draws) -> Mapping[str, str]:
    given = [("system", row["instruction"]), ("user", row["input"])]
    if not row["input"]:
        given = [("user", row["instruction"])]
    return conversation(*given, ("assistant", row["output"]))
