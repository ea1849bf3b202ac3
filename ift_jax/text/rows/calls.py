"""Tools and their calls, in the forms that data has them, in OpenAI's form."""

import ast
import json
from collections.abc import Mapping
from typing import Any

from ift_jax.errors import UserError
from ift_jax.text.rows import values

_CONSTANTS = {"true": True, "false": False, "null": None, "none": None}


def parse_tools(
    value: Any, place: str, *, keep_nulls: bool = False
) -> tuple[Mapping[str, Any], ...]:
    """Return tool definitions as `{"type": "function", "function": {...}}`.

    Args:
        value: A list of definitions, with or without that wrapping; or its JSON; or a list of the
            JSON of each.
        place: Its place, for errors.
        keep_nulls: See `values.object_of`.

    Raises:
        UserError: It is none of these.
    """
    keep_nulls = keep_nulls or isinstance(value, str | bytes)
    tools = []
    for i, item in enumerate(values.list_of(value, place, "a list of tools")):
        tool = values.object_of(item, f"{place}[{i}]", "an object", keep_nulls=keep_nulls)
        # Chat templates are written for this form, and servers send it.
        is_bare = isinstance(tool.get("name"), str) and "function" not in tool
        kind = tool.get("type", "function")
        if is_bare and kind == "function":
            bare = {key: item for key, item in tool.items() if key != "type"}
            tool = {"type": "function", "function": bare}
        elif not isinstance(kind, str) or (kind == "function" and "function" not in tool):
            raise UserError(f"{place}[{i}]: expected a tool's name and parameters; found {tool}")
        tools.append(tool)
    return tuple(tools)


def parse_calls(
    value: Any, place: str, unread: set[str], *, keep_nulls: bool = False
) -> tuple[Mapping[str, Any], ...]:
    """Return tool calls in OpenAI's form, with the arguments as an object.

    Args:
        value: A list of calls, one call, or their JSON; the arguments as an object or its JSON.
        place: Its place, for errors.
        unread: Gets the names of fields that are not read.
        keep_nulls: See `values.object_of`.

    Raises:
        UserError: A call has no name, or its arguments are not an object.
    """
    keep_nulls = keep_nulls or isinstance(value, str | bytes)
    value = values.parsed(value, place, "a list of calls")
    items = [value] if isinstance(value, Mapping) else value
    return tuple(
        _call(item, f"{place}[{i}]", unread, keep_nulls=keep_nulls)
        for i, item in enumerate(values.list_of(items, place, "a list of calls"))
    )


def _call(item: Any, place: str, unread: set[str], *, keep_nulls: bool) -> Mapping[str, Any]:
    item = values.object_of(item, place, "an object", keep_nulls=keep_nulls)
    function = item.get("function", item)
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise UserError(f"{place}: expected a function with 'name' and 'arguments'")
    name = "parameters" if "arguments" not in function and "parameters" in function else "arguments"
    arguments = function.get(name) or {}
    if isinstance(arguments, str):
        arguments = values.parsed(arguments, f"{place}: arguments", "an object")
    if not isinstance(arguments, Mapping):
        raise UserError(f"{place}: arguments: expected an object, {values.found(arguments)}")
    outer = ("id", "type", "function") if function is not item else ("id", "type", "name", name)
    inner = ("name", name) if function is not item else tuple(function)
    unread.update(_unread(item, outer, "tool_calls[]"))
    unread.update(_unread(function, inner, "tool_calls[].function"))
    call = {"type": "function"} | {key: item[key] for key in ("id", "type") if item.get(key)}
    return call | {"function": {"name": function["name"], "arguments": arguments}}


def _unread(fields: Mapping[str, Any], read: tuple[str, ...], place: str) -> set[str]:
    """Return the names of the fields with a value that were not read."""
    return {
        f"{place}.{key}"
        for key, value in fields.items()
        if key not in read and values.has_content(value)
    }


def parse_calls_text(text: str, place: str) -> tuple[Mapping[str, Any], ...]:
    """Return the calls in a text of JSON, or of lines such as `weather(city="Rome", days=2)`.

    Dolci writes the latter, and Olmo 3's own template prints them as they are.

    Raises:
        UserError: The text is neither.
    """
    if text.lstrip().startswith(("[", "{")):
        return parse_calls(text, place, set())
    try:
        body = ast.parse(text.strip(), mode="exec").body
        return tuple(_python_call(statement) for statement in body)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise UserError(
            f"{place}: expected calls in JSON, or such as 'f(x=1)' on a line each; found"
            f" {text[:60]!r}; a template that uses 'function_calls' takes any text"
        ) from None


def _python_call(statement: ast.stmt) -> Mapping[str, Any]:
    """Return one call; raise ValueError if the statement is anything else."""
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Call):
        raise ValueError("no call")
    call = statement.value
    if call.args or any(keyword.arg is None for keyword in call.keywords):
        raise ValueError("an argument without a name")
    arguments = {
        str(keyword.arg): ast.literal_eval(_WithConstants().visit(keyword.value))
        for keyword in call.keywords
    }
    json.dumps(arguments, allow_nan=False)  # A set or bytes would be no JSON.
    return {
        "type": "function",
        "function": {"name": ast.unparse(call.func), "arguments": arguments},
    }


class _WithConstants(ast.NodeTransformer):
    """Takes JSON's names of constants for Python's."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id not in _CONSTANTS:
            raise ValueError(f"the name {node.id}")
        return ast.Constant(_CONSTANTS[node.id])
