"""A record as fields of texts, the form in which it passes through SeqIO and tf.data."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from ift_jax.text import policies
from ift_jax.text.records import Message, Record
from ift_jax.text.rows.row_policy import policy_texts

# The fields that every record has, and those that some have.
CHAT_FIELDS = ("messages", "tools")
OPTIONAL_CHAT_FIELDS = (
    "references",
    "choices",
    "chat_template_kwargs",
    "weight",
    "rejected_messages",
    *policies.NAMES,
)
PAIR_FIELDS = ("inputs", "targets")
OPTIONAL_PAIR_FIELDS = (
    "system",
    "history",
    "weight",
    "references",
    "choices",
    *policies.NAMES,
)
_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Message)}


def chat_fields(record: Record) -> dict[str, str]:
    """Return a record as `CHAT_FIELDS` and the optional ones that it needs."""
    fields = {
        "messages": _json([_message_fields(message) for message in record.messages]),
        "tools": _json(record.tools),
        "references": _json(record.references),
        "choices": _json(record.choices),
        "chat_template_kwargs": _json(record.template_options),
        "weight": _weight(record.weight),
        "rejected_messages": _json([_message_fields(message) for message in record.rejected]),
        **_policy_fields(record),
    }
    return _needed(fields, CHAT_FIELDS)


def pair_fields(record: Record) -> dict[str, str] | None:
    """Return a record as `PAIR_FIELDS` and the optional ones; None if it is no pair of texts."""
    system = [m.content for m in record.messages[:1] if m.role == "system"]
    turns = record.messages[len(system) :]
    roles = [message.role for message in turns]
    if not turns or roles != ["user", "assistant"] * (len(roles) // 2):
        return None
    weight = turns[-1].weight  # Turns of equal weights give it to the pair.
    plain = [
        Message(message.role, message.content, weight if message.role == "assistant" else None)
        for message in turns
    ]
    if list(turns) != plain or record.tools or record.template_options:
        return None
    texts = [message.content for message in turns]
    history = list(zip(texts[:-2:2], texts[1:-2:2], strict=True))
    fields = {
        "inputs": texts[-2],
        "targets": texts[-1],
        "system": "".join(system),
        "history": _json(history),
        "weight": _weight(record.weight * (1.0 if weight is None else weight)),
        "references": _json(record.references),
        "choices": _json(record.choices),
        **_policy_fields(record),
    }
    return _needed(fields, PAIR_FIELDS)


def _weight(weight: float) -> str:
    return "" if weight == 1 else repr(weight)


def _policy_fields(record: Record) -> dict[str, str]:
    """Return the policies of a record as texts."""
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in policy_texts(record.policy).items()
    }


def _needed(fields: Mapping[str, str], always: tuple[str, ...]) -> dict[str, str]:
    return {name: text for name, text in fields.items() if text or name in always}


def _message_fields(message: Message) -> dict[str, Any]:
    """Return a message as an object: what differs from the defaults, in the words of rows."""
    fields = {
        name: value
        for name, default in _DEFAULTS.items()
        if (value := getattr(message, name)) != default and name not in ("role_name", "ranges")
    }
    if message.role_name:
        fields["role"] = message.role_name
    if message.tool_calls:
        # As a text, in which nulls stay.
        fields["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": _text(call)}}
            for call in message.tool_calls
        ]
    if message.ranges:
        fields["train_detail"] = [
            {"begin_offset": item.begin, "end_offset": item.end - 1, "train": item.trained}
            for item in message.ranges
        ]
    return fields


def _text(call: Mapping[str, Any]) -> str:
    return json.dumps(call["function"]["arguments"], ensure_ascii=False)


def _json(value: Any) -> str:
    """Return the JSON of a value; "" for an empty one."""
    return json.dumps(value, ensure_ascii=False) if value else ""
