"""One message of a conversation, in the forms of several systems."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ift_jax.errors import UserError, did_you_mean, nearest
from ift_jax.text.records import ROLES, TEXT_ROLE, Message
from ift_jax.text.rows import calls, switches, values

# Names of roles -> our role. A name that is not ours stays known to the template.
OUR_ROLES = {
    **{role: role for role in ROLES},
    "developer": "system",
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "function_response": "tool",
    "function": "tool",
    "ipython": "tool",
    "environment": "tool",
    TEXT_ROLE: TEXT_ROLE,
}
# Names that templates of released models know; the others are just ShareGPT's words.
_TEMPLATES_KNOW = ("developer", "observation", "function", "ipython", "environment")
_THOUGHTS = ("reasoning_content", "thinking", "reasoning")  # All name the same field.
_CALLS = ("tool_calls", "function_call", "function_calls")
_RANGE_FIELDS = {"begin_offset", "end_offset", "train"}
_NAMES = ("role", "from")
_CONTENTS = ("content", "value")
# Names of the same thing, of which one is read.
_SAME = (_NAMES, _CONTENTS, switches.RANGES)
# The types of a content's parts, and the field that holds the text of each.
_PART_FIELDS = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "thinking": "thinking",
    "reasoning": "text",
}
_THOUGHT_PARTS = ("thinking", "reasoning")
FIELDS = frozenset(
    (*_NAMES, *_CONTENTS, *_THOUGHTS, *_CALLS, *switches.SWITCHES, *switches.RANGES)
    + ("name", "tool_call_id", "functions", "tools")
)
_PLAIN = ({"role", "content"}, {"from", "value"})  # Most messages have just these fields.


class Parsed(NamedTuple):
    """A message, and the tools that it lists."""

    message: Message
    tools: tuple[Mapping[str, Any], ...] = ()


def parse_message(
    item: Any,
    place: str,
    ignored: frozenset[str],
    unread: set[str],
    *,
    keep_nulls: bool = False,
) -> Parsed:
    """Read one message.

    Args:
        item: An object with `role` and `content`, or ShareGPT's `from` and `value`.
        place: Its place, for errors.
        ignored: Names of fields to leave unread.
        unread: Gets the names of the fields that are not read.
        keep_nulls: See `values.object_of`.

    Raises:
        UserError: Names the field and what was expected.
    """
    # This shortcut halves the time that parsing takes.
    if type(item) is dict and item.keys() in _PLAIN:
        role, content = item.values()
        if type(role) is str is type(content) and role in ROLES and values.is_utf8(content):
            if next(iter(item)) in _NAMES:
                return Parsed(Message(role, content))
    if not isinstance(item, Mapping):
        raise UserError(
            f"{place}: expected an object with 'role' and 'content', {values.found(item)}"
        )
    item = {name: value for name, value in item.items() if name not in ignored}
    given = {name: value for name, value in item.items() if values.has_content(value)}
    _check_spelling(given, place)
    unread.update(name for name in given if name not in FIELDS)
    return _Reader(item, given, place, unread, keep_nulls).read()


def _check_spelling(given: Mapping[str, Any], place: str) -> None:
    """Refuse a misspelled field: a misspelled weight would train what was to be left out."""
    for name in given:
        if name not in FIELDS and len(name) > 4:
            near = nearest(name, FIELDS, cutoff=0.83)
            if near not in given and len(near) > 4:
                raise values.misspelled(f"{place}.{name}", near)


class _Reader:
    """Reads the fields of one message."""

    def __init__(
        self,
        item: Mapping[str, Any],
        given: Mapping[str, Any],
        place: str,
        unread: set[str],
        keep_nulls: bool,
    ):
        self._item = item
        self._given = given  # Without nulls and empty values.
        self._place = place
        self._unread = unread
        self._keep_nulls = keep_nulls

    def read(self) -> Parsed:
        self._check_same()
        written, role = self._role()
        thought_parts, content = self._content()
        tool_calls = self._tool_calls()
        if written == "function_call":
            if tool_calls:
                raise UserError(f"{self._place}: expected its calls once; found them twice")
            tool_calls = self._calls(content, "value")
            content = ""
        thought = self._thought()
        if thought and thought_parts not in ("", thought):
            raise UserError(f"{self._place}: expected one thought; found another in its content")
        thought = thought or thought_parts
        function_calls = self._function_calls()
        has_calls = bool(tool_calls or function_calls)
        if content is None:
            content = self._missing_content(may_lack=has_calls)
        self._check_own(role, has_calls=has_calls, has_thought=bool(thought))
        message = Message(
            role,
            content,
            weight=switches.weight_of(self._given, self._place),
            reasoning_content=thought,
            tool_calls=tool_calls,
            name=self._text("name"),
            tool_call_id=self._text("tool_call_id"),
            role_name=written if written in _TEMPLATES_KNOW else "",
            ranges=self._ranges(role, content),
            functions=self._functions(),
            function_calls=function_calls,
        )
        return Parsed(message, self._tools())

    def _check_same(self) -> None:
        """Refuse two names of one thing that say different things: one would be ignored."""
        for names in _SAME:
            there = [name for name in names if self._item.get(name) is not None]
            said = [self._item[name] for name in there]
            if names is _NAMES:  # ShareGPT's word beside ours says the same.
                said = [OUR_ROLES.get(str(name), name) for name in said]
            if any(value != said[0] for value in said[1:]):
                raise self._both(there)

    def _both(self, names: Sequence[str]) -> UserError:
        """Return the error about fields that say the same thing differently."""
        return UserError(
            f"{self._place}: expected one of {values.listed(names)}; found both, which differ;"
            " name one in data.ignore_fields"
        )

    def _named(self, names: Sequence[str]) -> str | None:
        """Return which of the names of one thing to read: one that is not null, if there is one."""
        there = [name for name in names if name in self._item]
        filled = [name for name in there if self._item[name] is not None]
        return next(iter(filled or there), None)

    def _role(self) -> tuple[str, str]:
        """Return the role as it is written, and ours."""
        field = self._named(_NAMES)
        if field is None:
            names = values.listed(self._item)
            raise UserError(f"{self._place}: field 'role' is missing; found {names}")
        written = values.text(self._item[field], f"{self._place}.{field}")
        role = OUR_ROLES.get(written)
        if role is None:
            known = [name for name in OUR_ROLES if name != TEXT_ROLE]
            raise UserError(
                f"{self._place}.{field}: expected one of {', '.join(known)}; found {written!r}"
                + did_you_mean(written, known)
            )
        return written, role

    def _content(self) -> tuple[str, str | None]:
        """Return the thoughts among the parts of the content, and the text; None for neither."""
        field = self._named(_CONTENTS)
        if field is None or self._item[field] is None:
            return "", None
        content = self._item[field]
        place = f"{self._place}.{field}"
        if isinstance(content, str | bytes):
            return "", values.text(content, place)
        thoughts: list[str] = []
        texts: list[str] = []
        for i, part in enumerate(values.list_of(content, place, "a text or a list of parts")):
            is_thought, text = self._part(part, f"{place}[{i}]")
            if is_thought and "".join(texts).strip():
                raise UserError(
                    f"{place}[{i}]: expected thoughts before the text, found one after it: a"
                    " template writes them there alone"
                )
            (thoughts if is_thought else texts).append(text)
        return "".join(thoughts), "".join(texts)

    def _part(self, part: Any, place: str) -> tuple[bool, str]:
        """Return whether a part of a content is a thought, and its text."""
        if isinstance(part, str):
            return False, values.text(part, place)
        if not isinstance(part, Mapping):
            raise UserError(f"{place}: expected a part of type 'text', {values.found(part)}")
        kind = part.get("type", "text")
        field = _PART_FIELDS.get(kind) if isinstance(kind, str) else None
        if field is None:
            raise UserError(
                f"{place}: expected a part of type 'text' or 'thinking'; found {kind!r}: this"
                " package trains on text alone"
            )
        stated = switches.weight_of(part, place)
        if stated is not None or switches.ranges_of(part, "", place):
            raise UserError(
                f"{place}: expected no weight of a part's own: give the message 'train_detail'"
            )
        self._unread.update(
            f"content[].{name}"
            for name, value in part.items()
            if name not in ("type", field) and values.has_content(value)
        )
        return kind in _THOUGHT_PARTS, values.text(part.get(field), f"{place}.{field}")

    def _missing_content(self, *, may_lack: bool) -> str:
        if may_lack:
            return ""
        field = self._named(_CONTENTS)
        if field is None:
            names = values.listed(self._item)
            raise UserError(f"{self._place}: field 'content' is missing; found {names}")
        raise UserError(f"{self._place}.{field}: expected a text, found null")

    def _thought(self) -> str:
        thoughts = [self._text(name) for name in _THOUGHTS if name in self._given]
        if len(set(thoughts)) > 1:
            names = values.listed(name for name in _THOUGHTS if name in self._given)
            raise UserError(f"{self._place}: expected one of {names}; found different texts")
        return thoughts[0] if thoughts else ""

    def _tool_calls(self) -> tuple[Mapping[str, Any], ...]:
        # OpenAI's older form has one call, under another name.
        names = [name for name in ("tool_calls", "function_call") if name in self._given]
        found = [self._calls(self._given[name], name) for name in names]
        functions = [[call["function"] for call in given] for given in found]
        if any(given != functions[0] for given in functions[1:]):
            raise self._both(names)
        return found[0] if found else ()

    def _calls(self, value: Any, name: str) -> tuple[Mapping[str, Any], ...]:
        place = f"{self._place}.{name}"
        return calls.parse_calls(value, place, self._unread, keep_nulls=self._keep_nulls)

    def _function_calls(self) -> str:
        """Return Dolci's calls, which are a text."""
        return self._text("function_calls")

    def _functions(self) -> str:
        """Return Dolci's list of tools, which is a text."""
        return self._text("functions")

    def _tools(self) -> tuple[Mapping[str, Any], ...]:
        if "tools" not in self._given:
            return ()
        place = f"{self._place}.tools"
        return calls.parse_tools(self._given["tools"], place, keep_nulls=self._keep_nulls)

    def _text(self, name: str) -> str:
        if name not in self._given:
            return ""
        return values.text(self._given[name], f"{self._place}.{name}")

    def _ranges(self, role: str, content: str) -> tuple[Any, ...]:
        found = switches.ranges_of(self._given, content, self._place)
        for name in switches.RANGES if found else ():
            for item in values.list_of(self._given.get(name, []), self._place, "a list"):
                given = {key for key, value in item.items() if values.has_content(value)}
                self._unread.update(f"{name}[].{key}" for key in given - _RANGE_FIELDS)
        if any(item.trained for item in found) and role != "assistant":
            raise UserError(
                f"{self._place}.train_detail: only an assistant's turn is trained, not {role!r}"
            )
        return found if role == "assistant" else ()

    def _check_own(self, role: str, *, has_calls: bool, has_thought: bool) -> None:
        """Refuse calls and thoughts of anybody but the assistant."""
        if role == "assistant" or not (has_calls or has_thought):
            return
        names = _CALLS if has_calls else (*_THOUGHTS, *_CONTENTS)
        name = next(name for name in names if name in self._given)
        raise UserError(f"{self._place}.{name}: only an assistant has it, not {role!r}")
