"""Open mixtures after Tulu 3: Dolci, SmolTalk 2, OpenThoughts, Magpie, Nemotron, and others.

`register(root)` registers each mixture of `tasks.open_mixtures.releases.RELEASES`. The parts of a
release that have files of their own are tasks, `smollm3_sft_<split>`, mixed in proportion to the
rows that the recipe takes of them; another release is one task. One row in two hundred is
"validation"; "all" has every row, as the published models were trained.

`hermes4_length_control` is Hermes 4's second stage (arXiv:2508.18255, section 3): rows with a
thought that was cut at the longest length, <root>/hermes4_length_control.jsonl, of which only the
closing tag and the end of the turn are trained.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from ift_jax.data.randomness import Draws
from ift_jax.sources.register import register_mixture, register_task, task_name
from ift_jax.sources.rows import Row, RowsSource, conversation
from tasks.open_mixtures.releases import RELEASES, Part, Release

_KEEP_OUT = 200
_FIELDS = ("messages", "chat_template_kwargs", "enable_thinking")
_MESSAGE_FIELDS = (
    "role", "content", "reasoning_content", "tool_calls", "tool_call_id", "name", "functions",
    "function_calls",
)  # fmt: skip
_LETTERS = "ABCD"
_CLOSING = "</think>"
_HERMES = "hermes4_length_control"


def register(root: str) -> None:
    """Register the tasks and mixtures of all releases."""
    for name, release in RELEASES.items():
        if release.is_split:
            names = [task_name(f"{name}_{part}") for part in release.parts]
            for task, (part_name, part) in zip(names, release.parts.items(), strict=True):
                register_task(task, _part_source(release, part_name, part, root))
            register_mixture(name, names)
        else:
            register_task(name, _source(release.dataset, release.subset, "train", root))
    source = RowsSource(
        _HERMES, _length_control, root, names={"train": (f"{_HERMES}.jsonl",)}, hub=False
    )
    register_task(_HERMES, source)


def _part_source(release: Release, name: str, part: Part, root: str) -> RowsSource:
    dataset, split = part.dataset or release.dataset, part.split or _SPLITS.get(name, name)
    return _source(dataset, release.subset, split, root, part)


# Splits whose names are no names of keywords in the table.
_SPLITS = {"OpenThoughts3_1_2M": "OpenThoughts3_1.2M"}


def _source(
    dataset: str, subset: str, split: str, root: str, part: Part | None = None
) -> RowsSource:
    """Return the rows of a split, or the share of them that a recipe takes."""
    render = {"cais/mmlu": _mmlu, "openai/gsm8k": _gsm8k}.get(dataset, _chat)
    is_whole = part is None or (part.weight, part.copies) == (1, 1)
    expand = None if part is None or is_whole else Share(part.weight, part.copies)
    folders = (f"{subset}/", "") if subset else ()
    patterns = tuple(
        f"{folder}{split}{ending}" for folder in folders for ending in ("-*.parquet", ".jsonl")
    )
    return RowsSource(
        dataset,
        render,
        root,
        splits={"train": split},
        names={"train": patterns} if patterns else None,
        hub=not subset,
        fields=_FIELDS if render is _chat else ("messages",),
        keep_out=_KEEP_OUT,
        expand=expand,
    )


class Share:
    """Takes a share of rows, chosen by a hash of what they hold, and each several times."""

    def __init__(self, weight: float, copies: int):
        """Name the function by what it does, so that another share is other data."""
        self._weight = weight
        self._copies = copies
        self.__qualname__ = f"Share({weight:g}, {copies})"

    def __call__(self, row: Row) -> Sequence[Row]:
        """Return the row as often as it is taken."""
        content = json.dumps(row, sort_keys=True, default=str).encode()
        return [row] * self._copies if zlib.crc32(content) < self._weight * 2**32 else []


def _chat(row: Row, draws: Draws) -> Mapping[str, str]:
    """Return the record of a row of messages, or of ShareGPT's turns."""
    record = {"messages": _json([_message(turn) for turn in _turns(row)])}
    options = {k: v for k, v in (row.get("chat_template_kwargs") or {}).items() if v is not None}
    record["chat_template_kwargs"] = _json(options) if options else ""
    reasoning = row.get("reasoning")
    record["enable_thinking"] = {"on": "true", "off": "false"}.get(str(reasoning), "")
    return record


def _turns(row: Row) -> list[Mapping[str, Any]]:
    turns = list(row["messages"] if "messages" in row else row["conversations"])
    if system := row.get("system"):
        turns.insert(0, {"role": "system", "content": system})
    return turns


def _message(turn: Mapping[str, Any]) -> dict[str, Any]:
    role, content = turn.get("role") or turn["from"], turn.get("content", turn.get("value"))
    message = {name: turn[name] for name in _MESSAGE_FIELDS if turn.get(name) is not None}
    return message | {"role": role, "content": content or ""}


def _mmlu(row: Row, draws: Draws) -> Mapping[str, str]:
    row = row.get("train") or row  # The release's auxiliary rows are one level deeper.
    choices = zip(_LETTERS, row["choices"], strict=True)
    options = "\n".join(f"{letter}. {choice}" for letter, choice in choices)
    question = f"{row['question']}\n\n{options}\n\nAnswer with the letter alone."
    return conversation(("user", question), ("assistant", _LETTERS[row["answer"]]))


def _gsm8k(row: Row, draws: Draws) -> Mapping[str, str]:
    return conversation(("user", row["question"]), ("assistant", row["answer"]))


def _length_control(row: Row, draws: Draws) -> Mapping[str, str]:
    """Return a record of which only the closing tag, and the stop token behind it, is trained.

    Raises:
        ValueError: The last turn is no thought that ends in the closing tag.
    """
    *before, last = [_message(turn) for turn in row["messages"]]
    begin = len(last["content"]) - len(_CLOSING)
    if last["role"] != "assistant" or last["content"][begin:] != _CLOSING:
        raise ValueError(f"its last turn is no thought that ends in {_CLOSING}")
    detail = [
        {"begin_offset": 0, "end_offset": begin - 1, "train": False},
        {"begin_offset": begin, "end_offset": len(last["content"]) - 1, "train": True},
    ]
    for turn in before:
        if turn["role"] == "assistant":
            turn["weight"] = 0
    return {"messages": _json([*before, last | {"train_detail": detail}])}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
