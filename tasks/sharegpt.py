"""Conversations in ShareGPT's format, which Vicuna and many tool-use sets have.

A row is {"conversations": [{"from": "human" | "gpt" | ..., "value": text}, ...], "tools"?,
"system"?}. `register(root)` registers a task `sharegpt_<file name>` for every .json file of the
folder (or for the one file), and the mixture `sharegpt` of all of them. A "function_call" (JSON of
name and arguments) becomes an assistant's tool call, an "observation" a tool's result, and "tools"
the record's tools. One row in twenty is "validation" (none of fewer); "all" has every row. Answers
before the first question are left out. A conversation without any answer is dropped and counted.
"""

import glob
import os

from ift_jax.errors import UserError
from ift_jax.metrics import rouge_l
from ift_jax.sources.register import register_mixture, register_task, task_name
from ift_jax.sources.row_files_source import RowFilesSource
from ift_jax.text.rows.parse_record import AUTOMATIC, RowOptions
from ift_jax.text.turn_rules import TurnRules

MIXTURE = "sharegpt"
_RULES = TurnRules(drop_leading_assistant=True)


def register(root: str, row_options: RowOptions = AUTOMATIC) -> tuple[str, ...]:
    """Register a task for each file and the mixture, and return the tasks' names.

    Raises:
        UserError: There is no .json file.
    """
    names = []
    for path in _files(root):
        stem = os.path.basename(path).removesuffix(".json")
        source = RowFilesSource(
            {"train": path},
            carve_validation=True,
            all_split=True,
            options=row_options,
            turn_rules=_RULES,
        )
        name = f"sharegpt_{task_name(stem)}"
        register_task(name, source, metric_fns=[rouge_l])
        names.append(name)
    register_mixture(MIXTURE, names)
    return tuple(names)


def _files(root: str) -> list[str]:
    if os.path.isfile(root):
        return [root]
    paths = sorted(glob.glob(os.path.join(glob.escape(root), "*.json"))) if root else []
    if not paths:
        raise UserError(
            f"data.root {root!r} holds no .json file; put one or more there (or name one), each an "
            "array of objects with 'conversations'"
        )
    return paths
