"""Conversations in ShareGPT's format, which Vicuna and many tool-use sets have.

A row is {"conversations": [{"from": "human" | "gpt" | ..., "value": text}, ...], "tools"?}.
`register(root)` registers a task `sharegpt_<file name>` for every .json file of the folder (or for
the one file), and the mixture `sharegpt` of all of them. A "function_call" (JSON of name and
arguments) becomes an assistant's tool call, an "observation" a tool's result, and "tools" the
record's tools. One row in twenty is "validation"; "all" has every row. Answers before the first
question are left out, and questions after the last answer. A row without any answer is left out
with a warning.
"""

import glob
import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ift_jax.data.randomness import Draws
from ift_jax.errors import UserError
from ift_jax.io.json_reader import parse_json
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
    """Register a task for each file and the mixture, and return the tasks' names.

    Raises:
        UserError: There is no .json file.
    """
    names = []
    for path in _files(root):
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


def _answered(row: Row) -> Sequence[Row]:
    turns = list(row["conversations"])
    while turns and _ROLES[turns[0]["from"]] not in ("user", "system"):
        turns.pop(0)
    while turns and _ROLES[turns[-1]["from"]] != "assistant":
        turns.pop()
    if not turns:
        logging.warning("sharegpt: conversation %s has no answer; left out", row.get("id", ""))
        return []
    return [{**row, "conversations": turns}]


def _record(row: Row, draws: Draws) -> Mapping[str, str]:
    messages = [_message(turn["from"], turn["value"]) for turn in row["conversations"]]
    tools = row.get("tools") or ""
    if not isinstance(tools, str):
        tools = json.dumps(tools, ensure_ascii=False)
    return {"messages": json.dumps(messages, ensure_ascii=False), "tools": tools}


def _message(sender: str, text: str) -> dict[str, Any]:
    if sender != "function_call":
        return {"role": _ROLES[sender], "content": text}
    call = parse_json(text, "function_call")
    function = {"name": call["name"], "arguments": call["arguments"]}
    calls = [{"type": "function", "function": function}]
    return {"role": "assistant", "content": "", "tool_calls": calls}
