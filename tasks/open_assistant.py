"""OpenAssistant Conversations (Koepf et al. 2023, arXiv:2304.07327): trees made conversations.

`register(root)` registers four tasks:

- `open_assistant`: every path from a tree's root to an answer without a reply. Paths share their
  beginnings; an answer is trained in the first path that it is part of, and is context of weight 0
  in the others. (The original trained it in each, so that common answers counted several times.)
- `open_assistant_best`: one path of each tree, with the best ranked reply at every turn, as Tulu 2
  and Guanaco chose them;
- `open_assistant_en`, `open_assistant_best_en`: only the trees whose first message is English.

A message that was deleted or failed its review is left out with all its replies. A conversation
ends before a question without an answer. Rows are trees (*_ready.trees.jsonl.gz of the release, in
the root), or messages with parents (OpenAssistant/oasst1 on the hub), from which the trees are
built. One tree in twenty is "validation" with all its paths; "all" has every tree.
"""

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ift_jax.data.randomness import Draws
from ift_jax.metrics import rouge_l
from ift_jax.sources.register import register_task
from ift_jax.sources.row_files import StoredRow
from ift_jax.sources.rows import Row, RowsSource

_NAMES = {"train": ("*oasst*_ready.trees.jsonl*", "*oasst*tree*.jsonl*")}
_ROLES = {"prompter": "user", "assistant": "assistant"}


def register(root: str) -> None:
    """Register the four tasks."""
    for name, expand in (
        ("open_assistant", every_conversation),
        ("open_assistant_best", best_conversation),
        ("open_assistant_en", english_conversations),
        ("open_assistant_best_en", best_english_conversation),
    ):
        source = TreesSource(
            "OpenAssistant/oasst1", _record, root, names=_NAMES, keep_out=20, expand=expand
        )
        register_task(name, source, metric_fns=[rouge_l])


class TreesSource(RowsSource):
    """Rows of trees, whether the files hold trees or messages."""

    def rows(self, split: str) -> Iterator[StoredRow]:
        rows = super().rows(split)
        first = next(rows, None)
        if first is None:
            return
        if "prompt" in first.fields():
            yield first
            yield from rows
        else:
            yield from _trees_of(itertools.chain([first], rows))


def _trees_of(rows: Iterable[StoredRow]) -> Iterator[StoredRow]:
    """Yield the trees of messages, which may come in any order.

    A message whose parent is missing is left out, with all its replies.
    """
    messages = {}
    places = {}
    for row in rows:
        message = {**row.fields(), "replies": []}
        messages[message["message_id"]] = message
        places[message["message_id"]] = row.place
    for message in messages.values():
        if message["parent_id"] in messages:
            messages[message["parent_id"]]["replies"].append(message)
    for name, message in messages.items():
        if message["parent_id"] is None:
            yield StoredRow(places[name], {"prompt": message})


def every_conversation(tree: Row) -> Sequence[Row]:
    """Return all paths; an answer that an earlier path trains has weight 0."""
    return _with_weights(_paths(tree["prompt"], _all_replies))


def best_conversation(tree: Row) -> Sequence[Row]:
    """Return the one path of the best ranked replies (rank 0); unranked ones come last."""
    return _with_weights(_paths(tree["prompt"], _best_reply))


def english_conversations(tree: Row) -> Sequence[Row]:
    """Return `every_conversation` of an English tree, and nothing of others."""
    return every_conversation(tree) if tree["prompt"]["lang"] == "en" else []


def best_english_conversation(tree: Row) -> Sequence[Row]:
    """Return `best_conversation` of an English tree, and nothing of others."""
    return best_conversation(tree) if tree["prompt"]["lang"] == "en" else []


def _all_replies(replies: list[Row]) -> list[Row]:
    return replies


def _best_reply(replies: list[Row]) -> list[Row]:
    def rank(reply: Row) -> float:
        value = reply.get("rank")
        return math.inf if value is None else value

    return [min(replies, key=rank)] if replies else []


def _paths(node: Row, choose: Callable[[list[Row]], list[Row]]) -> list[tuple[Row, ...]]:
    """Return the paths from a message down to answers.

    Args:
        node: A message with its replies.
        choose: Returns the replies that continue a conversation, of those that may be used.
    """
    if not _is_usable(node):
        return []
    replies = [reply for reply in node["replies"] if _is_usable(reply)]
    paths = [(node, *path) for reply in choose(replies) for path in _paths(reply, choose)]
    if not paths and _ROLES[node["role"]] == "assistant":
        paths = [(node,)]
    return paths


def _is_usable(node: Row) -> bool:
    return not node.get("deleted") and node.get("review_result") is not False


def _with_weights(paths: Iterable[Sequence[Row]]) -> list[Row]:
    """Return the conversations of paths, in which each answer has a weight other than 0 once."""
    trained: set[int] = set()
    conversations: list[Row] = []
    for path in paths:
        messages: list[dict[str, Any]] = []
        for node in path:
            message: dict[str, Any] = {"role": _ROLES[node["role"]], "content": node["text"]}
            if id(node) in trained:
                message["weight"] = 0
            elif node["role"] == "assistant":
                trained.add(id(node))
            messages.append(message)
        conversations.append({"messages": messages})
    return conversations


def _record(row: Row, draws: Draws) -> Mapping[str, str]:
    return {"messages": json.dumps(row["messages"], ensure_ascii=False)}
