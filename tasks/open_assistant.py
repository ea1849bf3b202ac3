"""OpenAssistant Conversations (Koepf et al. 2023, arXiv:2304.07327): trees made conversations.

`register(root)` registers four tasks:

- `open_assistant`: every way from a tree's root to an answer that nobody continued. Ways share
  their beginnings; an answer is trained in the first way it is part of and is context, of weight
  0, in the others. (The original trained it in each: common answers counted several times.)
- `open_assistant_best`: one way a tree: at every turn the reply that was ranked best, as Tulu 2 and
  Guanaco took them;
- `open_assistant_en`, `open_assistant_best_en`: of the trees whose first message is English.

A message that was deleted or failed its review is left out with all that follows it; a question
without an answer ends a conversation before it. Rows are trees (the release's
*_ready.trees.jsonl.gz in the root), or messages with parents (OpenAssistant/oasst1 of the hub), put
together to trees again. One tree in twenty is "validation", with all its ways; "all" has all.
"""

import itertools
import json
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
    """Registers the four tasks."""
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
            return
        messages = [(row.place, dict(row.fields())) for row in itertools.chain([first], rows)]
        by_id = {message["message_id"]: message | {"replies": []} for _, message in messages}
        for _, message in messages:
            if message["parent_id"] in by_id:
                by_id[message["parent_id"]]["replies"].append(by_id[message["message_id"]])
        for place, message in messages:
            if message["parent_id"] is None:  # A tree whose root is not there is no conversation.
                yield StoredRow(place, {"prompt": by_id[message["message_id"]]})


def every_conversation(tree: Row) -> Sequence[Row]:
    """All ways; an answer that an earlier way trains has weight 0."""
    return _with_weights(_ways(tree["prompt"], lambda replies: replies))


def best_conversation(tree: Row) -> Sequence[Row]:
    """The one way of the replies that were ranked best (rank 0); unranked ones come last."""

    def best(replies: list[Row]) -> list[Row]:
        ranks = [reply.get("rank") for reply in replies]
        order = sorted(range(len(replies)), key=lambda i: (ranks[i] is None, ranks[i] or 0, i))
        return [replies[order[0]]] if replies else []

    return _with_weights(_ways(tree["prompt"], best))


def english_conversations(tree: Row) -> Sequence[Row]:
    """`every_conversation` of an English tree, none of another."""
    return every_conversation(tree) if tree["prompt"]["lang"] == "en" else []


def best_english_conversation(tree: Row) -> Sequence[Row]:
    """`best_conversation` of an English tree, none of another."""
    return best_conversation(tree) if tree["prompt"]["lang"] == "en" else []


def _ways(node: Row, choose: Callable[[list[Row]], list[Row]]) -> list[tuple[Row, ...]]:
    """The ways below a message that end with an answer, it being the first message of each."""
    if node.get("deleted") or node.get("review_result") is False:
        return []
    role = _ROLES[node["role"]]
    replies = [reply for reply in node["replies"] if not reply.get("deleted")]
    replies = [reply for reply in replies if reply.get("review_result") is not False]
    ways = [(node, *way) for reply in choose(replies) for way in _ways(reply, choose)]
    return ways or ([(node,)] if role == "assistant" else [])


def _with_weights(ways: Iterable[Sequence[Row]]) -> list[Row]:
    trained: set[int] = set()
    conversations = []
    for way in ways:
        messages: list[dict[str, Any]] = []
        for node in way:
            messages.append({"role": _ROLES[node["role"]], "content": node["text"]})
            if id(node) in trained:
                messages[-1]["weight"] = 0
            elif node["role"] == "assistant":
                trained.add(id(node))
        conversations.append({"messages": messages})
    return conversations


def _record(row: Row, draws: Draws) -> Mapping[str, str]:
    return {"messages": json.dumps(row["messages"], ensure_ascii=False)}
