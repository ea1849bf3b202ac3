"""Records: text-to-text pairs and conversations, checked and brought into one form."""

import dataclasses
import difflib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ift_jax.errors import UserError, did_you_mean

ROLES = ("system", "user", "assistant", "tool")
# Which roles may come after which; None stands for the beginning.
_FOLLOWS: Mapping[str | None, tuple[str, ...]] = {
    None: ("system", "user"), "system": ("user",), "user": ("assistant",),
    "assistant": ("user", "tool"), "tool": ("tool", "assistant"),
}  # fmt: skip
_THOUGHT = ("reasoning_content", "thinking", "reasoning")  # All names of one field.
_PLAIN = {"role", "content"}  # All that most messages have.
_MESSAGE_FIELDS = ("role", "content", "weight", "tool_calls", "name", "tool_call_id", *_THOUGHT)


@dataclasses.dataclass(frozen=True)
class Message:
    """One turn."""

    role: str  # One of `ROLES`.
    content: str
    weight: float | None = None  # Of an assistant's loss; None is 1, 0 is untrained.
    reasoning_content: str = ""  # What an assistant thought first.
    tool_calls: tuple[Mapping[str, Any], ...] = ()  # OpenAI's form, the arguments an object.
    name: str = ""  # Of whoever speaks, or of the tool.
    tool_call_id: str = ""  # Of the call that a tool answers.


@dataclasses.dataclass(frozen=True)
class Record:
    """A conversation, or a text-to-text pair as one user and one assistant turn."""

    messages: tuple[Message, ...]
    references: tuple[str, ...] = ()  # What the last trained answer is compared with, besides.
    choices: tuple[str, ...] = ()  # Of a text-to-text record: the answers to be ranked.
    text_to_text: bool = False  # It was `inputs` and `targets`.
    where: str = ""  # Its place in the user's data, for error messages.
    tools: tuple[Mapping[str, Any], ...] = ()  # That may be called, as JSON schemas.


def parse_record(fields: Mapping[str, Any], where: str, *, prompt_only: bool = False) -> Record:
    """Checks one record of a task or a file.

    `fields` hold `inputs` and `targets` (strings or UTF-8 bytes) with, optionally, `references` and
    `choices`, of which one is right (lists of strings or their JSON); or `messages` (a list of
    objects or its JSON) with, optionally, `tools` (likewise). Others are not looked at. `where` is
    "file:line" or "task:index". With `prompt_only` the record is to be answered: `targets`, or a
    last assistant's turn, may be missing and is left out.

    Raises:
        UserError: names `where`, the field, and what was expected.
    """
    references = parse_references(fields, where)
    choices = parse_references(fields, where, "choices")
    if "messages" in fields:
        if choices:
            raise UserError(f"{where}: field 'choices': is for 'inputs' and 'targets'")
        tools = fields.get("tools")
        tools = _objects(tools, where, "tools") if _filled(tools) else ()
        items = _json_list(fields["messages"], where, "messages", "a list of messages")
        turns = tuple(_message(item, where, f"messages[{i}]") for i, item in enumerate(items))
        check_roles(turns, where)
        if prompt_only and turns[-1].role == "assistant":
            turns = turns[:-1]
        if prompt_only and turns[-1].role == "system":
            raise UserError(f"{where}: field 'messages': expected a turn to answer, found none")
        return Record(turns, references, where=where, tools=tools)
    if "inputs" not in fields and "targets" not in fields:
        raise UserError(
            f"{where}: expected the fields 'inputs' and 'targets', or 'messages';"
            f" found {_listed(fields)}"
        )
    messages = []
    for field, role in (("inputs", "user"), ("targets", "assistant"))[: 1 if prompt_only else 2]:
        if field not in fields:
            raise UserError(
                f"{where}: field {field!r} is missing{did_you_mean(field, fields)}; expected a text"
            )
        messages.append(Message(role, _text(fields[field], f"{where}: field {field!r}")))
    if choices and not prompt_only and not {messages[1].content, *references} & set(choices):
        raise UserError(
            f"{where}: field 'choices': expected the answer {messages[1].content!r} or "
            f"a reference among them; found {', '.join(map(repr, choices))}"
        )
    return Record(tuple(messages), references, choices, text_to_text=True, where=where)


def parse_references(
    fields: Mapping[str, Any], where: str, field: str = "references"
) -> tuple[str, ...]:
    """The texts of such a field of a record: a list or its JSON; empty where there is none."""
    value = fields.get(field)
    if not _filled(value):
        return ()
    items = _json_list(value, where, field, "a list of texts")
    return tuple(_text(item, f"{where}: {field}[{i}]") for i, item in enumerate(items))


def check_roles(messages: Sequence[Message], where: str) -> None:
    """Refuses no messages, or turns that do not follow one another: as UserError."""
    if not messages:
        raise UserError(f"{where}: field 'messages': expected at least one message, found none")
    before = None
    for i, message in enumerate(messages):
        if message.role not in _FOLLOWS[before]:
            after = f"after {before!r}" if before else "at the beginning"
            expected = " or ".join(repr(role) for role in _FOLLOWS[before])
            raise UserError(
                f"{where}: messages[{i}].role: expected {expected} {after}, found {message.role!r}"
            )
        before = message.role


def _message(item: Any, where: str, field: str) -> Message:
    if type(item) is dict and item.keys() == _PLAIN:
        role, content = item["role"], item["content"]
        if type(role) is str is type(content) and role in ROLES and content.isascii():
            return Message(role, content)
    place = f"{where}: {field}"
    if not isinstance(item, Mapping):
        raise UserError(f"{place}: expected an object with 'role' and 'content', {_found(item)}")
    for name in item:
        if name not in _MESSAGE_FIELDS:
            # A misspelt weight would otherwise train what was meant to be left out.
            close = difflib.get_close_matches(name, _MESSAGE_FIELDS, n=1, cutoff=0.8)
            if close and close[0] not in item:
                raise UserError(f"{place}.{name}: did you mean {close[0]!r}?")
    given = {name: value for name, value in item.items() if _filled(value)}
    calls = given.get("tool_calls", ())
    calls = _tool_calls(calls, where, f"{field}.tool_calls") if calls else ()
    for name in ("role",) if calls else ("role", "content"):
        if name not in item:
            raise UserError(f"{place}: field {name!r} is missing; found {_listed(item)}")
    role = _text(item["role"], f"{place}.role")
    if role not in ROLES:
        raise UserError(
            f"{place}.role: expected one of {', '.join(ROLES)}, found {role!r}"
            + did_you_mean(role, ROLES)
        )
    thought = next((name for name in _THOUGHT if name in given), "")
    for name in ("tool_calls" if calls else "", thought):
        if name and role != "assistant":
            raise UserError(f"{place}.{name}: only an assistant has it, not {role!r}")
    content = item.get("content")
    texts = {
        name: _text(given[name], f"{place}.{name}")
        for name in ("name", "tool_call_id")
        if name in given
    }
    return Message(
        role,
        "" if calls and content is None else _text(content, f"{place}.content"),
        _weight(item.get("weight"), role, f"{place}.weight"),
        _text(given[thought], f"{place}.{thought}") if thought else "",
        calls,
        **texts,
    )


def _tool_calls(value: Any, where: str, field: str) -> tuple[Mapping[str, Any], ...]:
    calls = []
    for i, item in enumerate(_objects(value, where, field)):
        function = item.get("function", item)
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise UserError(
                f"{where}: {field}[{i}]: expected a function with 'name' and 'arguments'"
            )
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):
            wrong = f"{where}: {field}[{i}]: arguments: expected JSON"
            arguments = _json(arguments or "{}", wrong)
        call = {"type": "function"} | {key: item[key] for key in ("id", "type") if key in item}
        calls.append(call | {"function": {"name": function["name"], "arguments": arguments}})
    return tuple(calls)


def _objects(value: Any, where: str, field: str) -> tuple[dict[str, Any], ...]:
    """A list of objects, without the nulls that Arrow fills in where objects differ."""
    items = _json_list(value, where, field, "a list of objects")
    for i, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise UserError(f"{where}: {field}[{i}]: expected an object, {_found(item)}")
    return tuple(map(_without_nulls, items))


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return [_without_nulls(v) for v in value] if isinstance(value, list | tuple) else value


def _weight(value: Any, role: str, place: str) -> float | None:
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0:
        raise UserError(f"{place}: expected a number of at least 0, found {value!r}")
    if value and role != "assistant":
        raise UserError(
            f"{place}: only an assistant's turn is trained; expected 0 or no weight"
            f" for {role!r}, found {value!r}"
        )
    return float(value)


def _json_list(value: Any, where: str, field: str, expected: str) -> list[Any]:
    place = f"{where}: field {field!r}"
    if isinstance(value, str | bytes):
        wrong = f"{place}: expected {expected} or its JSON, found text that is not JSON"
        value = _json(_text(value, place), wrong)
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise UserError(f"{place}: expected {expected}, {_found(value)}")
    return list(value)


def _json(text: str, wrong: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{wrong} ({error})") from error


def _text(value: Any, place: str) -> str:
    try:
        if isinstance(value, bytes):
            return value.decode("utf-8")
        if isinstance(value, str):
            value.encode("utf-8")  # Half of a surrogate pair, as "\ud83d" in JSON, is no text.
            return str(value)
    except UnicodeError as error:
        raise UserError(f"{place}: expected valid UTF-8 text ({error})") from error
    raise UserError(f"{place}: expected a text, {_found(value)}")


def _filled(value: Any) -> bool:
    """Whether a field that may be absent says anything: null and empty values do not."""
    if value is None:
        return False
    return len(value) > 0 if hasattr(value, "__len__") else bool(value)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"


def _found(value: Any) -> str:
    if value is None:
        return "found null"
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean"}
    numbers = "a number" if isinstance(value, int | float) else type(value).__name__
    return f"found {names.get(type(value), numbers)} ({str(value)[:40]!r})"
