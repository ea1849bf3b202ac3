"""Records: text-to-text pairs and conversations, checked and brought into one form."""

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ift_jax.errors import UserError, did_you_mean
from ift_jax.io.json_reader import parse_json

ROLES = ("system", "user", "assistant", "tool")
# Which roles may come after which; None stands for the beginning.
_MAY_FOLLOW: Mapping[str | None, tuple[str, ...]] = {
    None: ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant"),
}
_THOUGHT_NAMES = ("reasoning_content", "thinking", "reasoning")  # All name the same field.
_PLAIN_FIELDS = {"role", "content"}  # Most messages have just these.
_MESSAGE_FIELDS = (
    "role",
    "content",
    "weight",
    "tool_calls",
    "name",
    "tool_call_id",
    *_THOUGHT_NAMES,
)


@dataclasses.dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: One of `ROLES`.
        content: The text.
        weight: The loss weight of an assistant's turn; None is 1, and 0 is untrained.
        reasoning_content: What an assistant thought before it answered.
        tool_calls: Calls in OpenAI's form, with the arguments as an object.
        name: The name of the speaker, or of the tool.
        tool_call_id: The call that a tool's turn answers.
    """

    role: str
    content: str
    weight: float | None = None
    reasoning_content: str = ""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    name: str = ""
    tool_call_id: str = ""


@dataclasses.dataclass(frozen=True)
class Record:
    """A conversation, or a text-to-text pair as one user's and one assistant's turn.

    Attributes:
        messages: The turns.
        references: What the last trained answer is compared with, besides itself.
        choices: The answers of a text-to-text record that are to be ranked.
        text_to_text: Whether the record was `inputs` and `targets`.
        where: Its place in the user's data, for error messages.
        tools: The tools that may be called, as JSON schemas.
    """

    messages: tuple[Message, ...]
    references: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    text_to_text: bool = False
    where: str = ""
    tools: tuple[Mapping[str, Any], ...] = ()


def parse_record(fields: Mapping[str, Any], where: str, *, prompt_only: bool = False) -> Record:
    """Check one record of a task or a file, and bring it into one form.

    Args:
        fields: Either `inputs` and `targets` (strings or UTF-8 bytes) with, optionally,
            `references` and `choices`, one of which is right (lists of strings or their JSON); or
            `messages` (a list of objects or its JSON) with, optionally, `references` and `tools`
            (likewise). Other fields are not read.
        where: The record's place: "file:line" or "task:index".
        prompt_only: Whether the record is to be answered. Then `targets` may be missing, and is
            left out, as is an assistant's turn at the end.

    Raises:
        UserError: Names `where`, the field, and what was expected.
    """
    references = parse_references(fields, where)
    choices = parse_references(fields, where, "choices")
    if "messages" in fields:
        if choices:
            raise UserError(f"{where}: field 'choices': is for 'inputs' and 'targets'")
        return _parse_conversation(fields, references, where, prompt_only)
    if "inputs" not in fields and "targets" not in fields:
        raise UserError(
            f"{where}: expected the fields 'inputs' and 'targets', or 'messages';"
            f" found {_listed(fields)}"
        )
    inputs = Message("user", _text_field(fields, "inputs", where))
    if prompt_only:
        return Record((inputs,), references, choices, text_to_text=True, where=where)
    targets = Message("assistant", _text_field(fields, "targets", where))
    if choices and not {targets.content, *references} & set(choices):
        raise UserError(
            f"{where}: field 'choices': expected the answer {targets.content!r} or "
            f"a reference among them; found {', '.join(map(repr, choices))}"
        )
    return Record((inputs, targets), references, choices, text_to_text=True, where=where)


def parse_references(
    fields: Mapping[str, Any], where: str, field: str = "references"
) -> tuple[str, ...]:
    """Return the texts in a field of a record, a list or its JSON; empty if it is absent."""
    value = fields.get(field)
    if not _has_content(value):
        return ()
    items = _list(value, where, field, "a list of texts")
    return tuple(_text(item, f"{where}: {field}[{i}]") for i, item in enumerate(items))


def check_roles(messages: Sequence[Message], where: str) -> None:
    """Raise UserError if there are no messages, or if a role may not follow the one before it."""
    if not messages:
        raise UserError(f"{where}: field 'messages': expected at least one message, found none")
    before = None
    for i, message in enumerate(messages):
        if message.role not in _MAY_FOLLOW[before]:
            after = f"after {before!r}" if before else "at the beginning"
            expected = " or ".join(map(repr, _MAY_FOLLOW[before]))
            raise UserError(
                f"{where}: messages[{i}].role: expected {expected} {after}, found {message.role!r}"
            )
        before = message.role


def _parse_conversation(
    fields: Mapping[str, Any], references: tuple[str, ...], where: str, prompt_only: bool
) -> Record:
    tools = fields.get("tools")
    parsed_tools = _objects(tools, where, "tools") if _has_content(tools) else ()
    items = _list(fields["messages"], where, "messages", "a list of messages")
    messages = tuple(_message(item, where, f"messages[{i}]") for i, item in enumerate(items))
    check_roles(messages, where)
    if prompt_only:
        if messages[-1].role == "assistant":
            messages = messages[:-1]
        if messages[-1].role == "system":
            raise UserError(f"{where}: field 'messages': expected a turn to answer, found none")
    return Record(messages, references, where=where, tools=parsed_tools)


def _message(item: Any, where: str, field: str) -> Message:
    # Nearly all messages are plain; this shortcut halves the time that parsing takes.
    if type(item) is dict and item.keys() == _PLAIN_FIELDS:
        role, content = item["role"], item["content"]
        if type(role) is str is type(content) and role in ROLES and content.isascii():
            return Message(role, content)
    place = f"{where}: {field}"
    if not isinstance(item, Mapping):
        raise UserError(f"{place}: expected an object with 'role' and 'content', {_found(item)}")
    _check_spelling(item, place)
    given = {name: value for name, value in item.items() if _has_content(value)}
    calls: tuple[Mapping[str, Any], ...] = ()
    if "tool_calls" in given:
        calls = _tool_calls(given["tool_calls"], where, f"{field}.tool_calls")
    for required in ("role",) if calls else ("role", "content"):
        if required not in item:
            raise UserError(f"{place}: field {required!r} is missing; found {_listed(item)}")
    role = _text(item["role"], f"{place}.role")
    if role not in ROLES:
        raise UserError(
            f"{place}.role: expected one of {', '.join(ROLES)}, found {role!r}"
            + did_you_mean(role, ROLES)
        )
    thought = next((name for name in _THOUGHT_NAMES if name in given), None)
    for own in ("tool_calls" if calls else None, thought):
        if own is not None and role != "assistant":
            raise UserError(f"{place}.{own}: only an assistant has it, not {role!r}")

    def optional_text(name: str) -> str:
        return _text(given[name], f"{place}.{name}") if name in given else ""

    name = optional_text("name")
    tool_call_id = optional_text("tool_call_id")
    content = item.get("content")
    return Message(
        role,
        content="" if calls and content is None else _text(content, f"{place}.content"),
        weight=_weight(item.get("weight"), role, f"{place}.weight"),
        reasoning_content=optional_text(thought) if thought is not None else "",
        tool_calls=calls,
        name=name,
        tool_call_id=tool_call_id,
    )


def _check_spelling(item: Mapping[str, Any], place: str) -> None:
    """Refuse a misspelled field: a misspelled weight would train what was to be left out."""
    for name in item:
        if name not in _MESSAGE_FIELDS:
            close = difflib.get_close_matches(name, _MESSAGE_FIELDS, n=1, cutoff=0.8)
            if close and close[0] not in item:
                raise UserError(f"{place}.{name}: did you mean {close[0]!r}?")


def _tool_calls(value: Any, where: str, field: str) -> tuple[Mapping[str, Any], ...]:
    """Bring tool calls into OpenAI's form, with the arguments as an object."""
    calls = []
    for i, item in enumerate(_objects(value, where, field)):
        function = item.get("function", item)
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise UserError(
                f"{where}: {field}[{i}]: expected a function with 'name' and 'arguments'"
            )
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):
            expected = f"{where}: {field}[{i}]: arguments: expected JSON"
            arguments = _json(arguments or "{}", expected)
        call = {"type": "function"}
        call |= {key: item[key] for key in ("id", "type") if key in item}
        calls.append(call | {"function": {"name": function["name"], "arguments": arguments}})
    return tuple(calls)


def _objects(value: Any, where: str, field: str) -> tuple[dict[str, Any], ...]:
    """Return a list of objects, without the nulls that Arrow fills in where objects differ."""
    items = _list(value, where, field, "a list of objects")
    for i, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise UserError(f"{where}: {field}[{i}]: expected an object, {_found(item)}")
    return tuple(map(_without_nulls, items))


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_nulls(item) for item in value]
    return value


def _weight(value: Any, role: str, place: str) -> float | None:
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0:
        raise UserError(f"{place}: expected a number of at least 0, found {value!r}")
    if value and role != "assistant":
        raise UserError(
            f"{place}: only an assistant's turn is trained; expected 0 or no weight"
            f" for {role!r}, found {value!r}"
        )
    return float(value)


def _list(value: Any, where: str, field: str, expected: str) -> list[Any]:
    """Return a list that is given as a list, an array, or JSON."""
    place = f"{where}: field {field!r}"
    if isinstance(value, str | bytes):
        not_json = f"{place}: expected {expected} or its JSON, found text that is not JSON"
        value = _json(_text(value, place), not_json)
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise UserError(f"{place}: expected {expected}, {_found(value)}")
    return list(value)


def _json(text: str, message: str) -> Any:
    """Parse JSON; raise a UserError that begins with the message if the text is not JSON."""
    return parse_json(text, message, strict=True)


def _text_field(fields: Mapping[str, Any], field: str, where: str) -> str:
    if field not in fields:
        raise UserError(
            f"{where}: field {field!r} is missing{did_you_mean(field, fields)}; expected a text"
        )
    return _text(fields[field], f"{where}: field {field!r}")


def _text(value: Any, place: str) -> str:
    try:
        if isinstance(value, bytes):
            return value.decode("utf-8")
        if isinstance(value, str):
            value.encode("utf-8")  # Half of a surrogate pair, such as "\ud83d" in JSON, is no text.
            return str(value)
    except UnicodeError as error:
        raise UserError(f"{place}: expected valid UTF-8 text ({error})") from error
    raise UserError(f"{place}: expected a text, {_found(value)}")


def _has_content(value: Any) -> bool:
    """Whether an optional field has a value that is neither null nor empty."""
    if value is None:
        return False
    return len(value) > 0 if hasattr(value, "__len__") else bool(value)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"


def _found(value: Any) -> str:
    """Describe what was found in place of what was expected."""
    if value is None:
        return "found null"
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "a boolean"}
    other = "a number" if isinstance(value, int | float) else type(value).__name__
    return f"found {kinds.get(type(value), other)} ({str(value)[:40]!r})"
