"""Conversations in ShareGPT's form, as Vicuna and many tool-use sets have them.

A row is {"conversations": [{"from": "human" | "gpt" | ..., "value": text}, ...], "tools"?}.
`register(root)` registers a task `sharegpt_<file name>` for every .json file of the folder (or
for the one file), and the mixture `sharegpt` of them all. A "function_call" (JSON of name and
arguments) becomes an assistant's tool call, an "observation" a tool's result, "tools" the tools of
the record. One row in twenty is "validation"; "all" has every row. Answers that come before the
first question are left out, and questions after the last answer; so is, with a warning, a row
that then has no answer.
"""

import glob
import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ift_jax.data.randomness import Draws
from ift_jax.errors import UserError
from ift_jax.metrics import rouge_l
from ift_jax.sources.register import register_mixture, register_task, task_name
from ift_jax.sources.rows import Row, RowsSource

MIXTURE = "sharegpt"
_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "assistant": "assistant",
    "system": "system",
    "function_call": "assistant",
    "observation": "tool",
    "tool": "tool",
}


def register(root: str) -> tuple[str, ...]:
    """Registers a task a file and the mixture; returns the tasks' names."""
    paths = [root] if os.path.isfile(root) else []
    paths = paths or sorted(glob.glob(os.path.join(glob.escape(root), "*.json")) if root else [])
    if not paths:
        raise UserError(
            f"data.root {root!r} holds no .json file; put one or more there (or name one), each an "
            "array of objects with 'conversations'"
        )
    names = []
    for path in paths:
        stem = os.path.basename(path).removesuffix(".json")
        source = RowsSource(
            stem,
            _record,
            path,
            hub=False,
            fields=("messages", "tools"),
            keep_out=20,
            expand=_answered,
        )
        names.append(f"sharegpt_{task_name(stem)}")
        register_task(names[-1], source, metric_fns=[rouge_l])
    register_mixture(MIXTURE, names)
    return tuple(names)


def _answered(row: Row) -> Sequence[Row]:
    turns = list(row["conversations"])
    while turns and _ROLES[turns[0]["from"]] not in ("user", "system"):
        turns.pop(0)
    while turns and _ROLES[turns[-1]["from"]] != "assistant":
        turns.pop()
    if not turns:
        logging.warning("sharegpt: conversation %s has no answer; left out", row.get("id", ""))
    return [{**row, "conversations": turns}] if turns else []


def _record(row: Row, draws: Draws) -> Mapping[str, str]:
    messages = [_message(turn["from"], turn["value"]) for turn in row["conversations"]]
    tools = row.get("tools") or ""
    return {
        "messages": json.dumps(messages, ensure_ascii=False),
        "tools": tools if isinstance(tools, str) else json.dumps(tools, ensure_ascii=False),
    }


def _message(who: str, text: str) -> dict[str, Any]:
    if who != "function_call":
        return {"role": _ROLES[who], "content": text}
    call = json.loads(text)
    function = {"name": call["name"], "arguments": call["arguments"]}
    calls = [{"type": "function", "function": function}]
    return {"role": "assistant", "content": "", "tool_calls": calls}
