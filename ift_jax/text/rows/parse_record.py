"""Reading a row, of whatever source and shape, as a record."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ift_jax.config.data import DataConfig
from ift_jax.errors import UserError
from ift_jax.text.records import TEXT_ROLE, Message, Record
from ift_jax.text.rows import calls, preferences, row_policy, shapes, switches, values
from ift_jax.text.rows.messages import parse_message

_SYSTEMS = ("system", "system_prompt", "system_message")
_TOOLS = ("tools", "functions")
_SWITCH = "enable_thinking"  # The option of a template that many rows have in a field of its own.
# The rejected side beside the chosen one in "messages": the form in which pairs pass SeqIO.
REJECTED_MESSAGES = "rejected_messages"
# Variables of a template that the conversation itself sets.
RESERVED_OPTIONS = ("messages", "tools", "documents", "add_generation_prompt")


@dataclasses.dataclass(frozen=True)
class RowOptions:
    """How rows are read: the part of the config that a source needs.

    Attributes:
        schema: `data.schema`, the name of a shape or "auto".
        ignored: `data.ignore_fields`.
        reads_license: Whether the filter "license" is one of `data.filters`.
    """

    schema: str = "auto"
    ignored: frozenset[str] = frozenset()
    reads_license: bool = False

    @classmethod
    def of(cls, data: DataConfig) -> "RowOptions":
        """Return what a config says."""
        return cls(data.schema, frozenset(data.ignore_fields), "license" in data.filters)


AUTOMATIC = RowOptions()


def parse_record(
    fields: Mapping[str, Any],
    where: str,
    *,
    prompt_only: bool = False,
    options: RowOptions = AUTOMATIC,
    keep_nulls: bool = False,
) -> Record:
    """Read a row as a record. The order of its turns is not checked.

    Args:
        fields: A row of one of `shapes.SHAPES`, with the optional fields of any of them: a system
            turn, a history, tools, options of the template, weights, `references` and `choices`.
            A text may be UTF-8 bytes, and anything else its JSON.
        where: The row's place: "file:line" or "task:index".
        prompt_only: Whether the record is to be answered. Then its answer may be missing, and is
            left out, as is an assistant's turn at the end.
        options: How rows are read.
        keep_nulls: Whether nulls inside tools and calls are the row's own; see `values.object_of`.

    Raises:
        UserError: Names `where`, the field, and what was expected.
    """
    return _RowReader(fields, where, prompt_only, options, keep_nulls).read()


def parse_references(
    fields: Mapping[str, Any], where: str, field: str = "references"
) -> tuple[str, ...]:
    """Return the texts in a field of a record, a list or its JSON; empty if it is absent."""
    value = fields.get(field)
    if not values.has_content(value):
        return ()
    items = values.list_of(value, f"{where}: field {field!r}", "a list of texts")
    return tuple(values.text(item, f"{where}: {field}[{i}]") for i, item in enumerate(items))


class _RowReader:
    """Reads one row, and remembers which fields it read."""

    def __init__(
        self,
        fields: Mapping[str, Any],
        where: str,
        prompt_only: bool,
        options: RowOptions,
        keep_nulls: bool,
    ):
        self._all = fields
        self._where = where
        self._prompt_only = prompt_only
        self._keep_nulls = keep_nulls
        self._ignored = options.ignored
        # A row has few fields, and may have many: what is looked for is looked up in those.
        self._filled = {name: v for name, v in fields.items() if values.has_content(v)}
        self._given = {name: v for name, v in self._filled.items() if name not in options.ignored}
        self._reads_license = options.reads_license
        self._shape = shapes.recognize(fields, where, options.schema, prompt_only=prompt_only)
        self._read = {*self._shape.keys, *self._shape.optional}
        self._unread_inside = set[str]()  # Fields of messages.
        self._tools: list[Mapping[str, Any]] = []

    def read(self) -> Record:
        references = parse_references(self._take_all("references"), self._where)
        choices = parse_references(self._take_all("choices"), self._where, "choices")
        row = f"{self._where}: row"
        given = {n: _number(value) for n, value in self._take_all(*switches.SWITCHES).items()}
        weight = switches.weight_of(given, row)
        switches.weight_of(self._take_all(*switches.UNKNOWN_SWITCHES), row)
        own, rejected = self._own_messages()
        if rejected and weight not in (None, 1.0):
            raise UserError(
                f"{row}: expected no weight, because a pair counts once; found {weight:g}"
            )
        history = self._history()
        if not (own or history):
            raise UserError(
                f"{self._where}: field {self._shape.keys[0]!r}: expected at least one message,"
                " found none"
            )
        before = (*self._system(own), *history)
        messages = [*before, *own]
        self._check_choices(choices, own, references)
        for name in _TOOLS:
            if (value := self._take(name)) is not None:
                place = f"{self._where}: field {name!r}"
                self._tools += calls.parse_tools(value, place, keep_nulls=self._keep_nulls)
        options = self._template_options()
        license = (self._take("license") or "") if self._reads_license else ""
        return Record(
            tuple(self._without_answer(messages) if self._prompt_only else messages),
            references,
            choices,
            text_to_text=self._shape.is_pair_of_texts(self._all) and not before,
            where=self._where,
            tools=tuple(self._tools),
            template_options=options,
            policy=row_policy.parse_policy(self._take_all(*row_policy.FIELDS), self._where),
            weight=1.0 if weight is None else weight,
            rejected=(*before, *rejected) if rejected and not self._prompt_only else (),
            unread=self._unread(),
            license=license and values.text(license, f"{self._where}: field 'license'"),
        )

    # Taking fields.

    def _take(self, name: str) -> Any:
        """Return an optional field, None where it is empty, and note that it was read."""
        value = self._given.get(name)
        if value is not None:
            self._read.add(name)
        return value

    def _take_all(self, *names: str) -> dict[str, Any]:
        if self._given.keys().isdisjoint(names):  # Nearly always.
            return {}
        return {name: value for name in names if (value := self._take(name)) is not None}

    def _text(self, name: str) -> str:
        """Return a field of the shape that is a text."""
        if name not in self._all:
            raise shapes.missing(name, self._all, self._where)
        return values.text(self._all[name], f"{self._where}: field {name!r}")

    def _unread(self) -> tuple[str, ...]:
        """Return the names of the fields with a value that nothing read.

        Raises:
            UserError: One seems to say how much is trained.
        """
        unread = self._filled.keys() - self._read
        for name in sorted(unread - self._ignored):
            switch = switches.meant(name)
            if switch in switches.RANGES:
                raise UserError(
                    f"{self._where}: row.{name}: expected it on the message whose characters it"
                    " counts, or its name in data.ignore_fields"
                )
            if switch:
                raise values.misspelled(f"{self._where}: row.{name}", switch)
        return (*sorted(unread), *sorted(self._unread_inside))

    # The messages.

    def _own_messages(self) -> tuple[list[Message], list[Message]]:
        """Return the row's messages but system and history, and those of a rejected side."""
        if self._shape.name == shapes.PREFERENCE:
            return self._pair()
        own = self._one_side()
        if self._take(REJECTED_MESSAGES) is None:
            return own, []
        rejected = self._messages(REJECTED_MESSAGES)
        return own, rejected

    def _pair(self) -> tuple[list[Message], list[Message]]:
        """Return the messages of both sides of a pair, the shared ones included."""
        chosen, rejected = map(self._side, self._shape.keys)
        prompt = self._pair_prompt(chosen[: preferences.n_alike(chosen, rejected)])
        pair = preferences.make_pair(prompt, chosen, rejected, self._where)
        if self._prompt_only:
            return list(pair.prompt), []
        return [*pair.prompt, *pair.chosen], [*pair.prompt, *pair.rejected]

    def _side(self, name: str) -> list[Message]:
        """Return the messages of one side: a text, a message, or a list of messages."""
        if isinstance(self._all.get(name), str | bytes | None):
            return [Message("assistant", self._text(name))]
        return self._messages(name)

    def _pair_prompt(self, shared: list[Message]) -> list[Message]:
        """Return the prompt of a pair that has a field of its own and is not in both sides."""
        name = next((name for name in preferences.PROMPTS if self._has(name)), None)
        if name is None:
            return []
        if isinstance(self._all[name], list | tuple):
            prompt = self._messages(name)
        else:
            text = self._text(name)
            if name == "instruction" and self._has("input"):
                text += "\n\n" + self._text("input")
                self._read.add("input")
            prompt = [Message("user", text)]
        # Sides that begin with an answer, even with the same one, only complete the prompt.
        are_conversations = bool(shared) and shared[0].role not in ("assistant", "tool")
        is_said = are_conversations and preferences.is_said(prompt, shared)
        if are_conversations and not is_said:
            return []  # They are of another prompt, and the field stays unread.
        self._read.add(name)
        return [] if is_said else prompt

    def _has(self, name: str) -> bool:
        return name in self._given

    def _one_side(self) -> list[Message]:
        """Return the row's messages but system and history."""
        question, *answer = self._shape.keys
        if self._shape.name == "text":
            if self._prompt_only:
                raise UserError(f"{self._where}: a row with 'text' alone has no prompt to answer")
            return [Message(TEXT_ROLE, self._text("text"))]
        if not self._shape.is_pair:
            return self._messages(question)
        if self._shape.name == "instruction":
            return [self._instruction(), *self._answer(*answer)]
        # In TRL's form each of the two is a text or a list of messages.
        if isinstance(self._all.get(question), list | tuple):
            before = [preferences.untrained(message) for message in self._messages(question)]
        else:
            before = [Message("user", self._text(question))]
        return [*before, *self._answer(*answer)]

    def _instruction(self) -> Message:
        instruction = self._text("instruction")
        if values.has_content(self._all.get("input")):
            instruction += "\n\n" + self._text("input")
        return Message("user", instruction)

    def _answer(self, name: str) -> list[Message]:
        if self._prompt_only and self._all.get(name) is None:
            return []
        if isinstance(self._all.get(name), list | tuple):
            return self._messages(name)
        return [Message("assistant", self._text(name))]

    def _messages(self, key: str) -> list[Message]:
        if key not in self._all:
            raise shapes.missing(key, self._all, self._where)
        place = f"{self._where}: field {key!r}"
        value = self._all[key]
        is_one = self._shape.name == shapes.PREFERENCE and isinstance(value, Mapping)
        items = [value] if is_one else values.list_of(value, place, "a list of messages")
        unread = set[str]()
        messages = []
        for i, item in enumerate(items):
            where = f"{self._where}: {key}[{i}]"
            parsed = parse_message(item, where, self._ignored, unread, keep_nulls=self._keep_nulls)
            messages.append(parsed.message)
            self._tools += parsed.tools
        self._unread_inside |= {f"{key}[].{name}" for name in unread}
        if any(m.role == TEXT_ROLE for m in messages) and len(messages) > 1:
            raise UserError(f"{place}: a message of the role 'text' stands alone")
        return messages

    def _system(self, own: list[Message]) -> list[Message]:
        """Return the system turn that has a field of its own."""
        given = self._take_all(*_SYSTEMS)
        texts = {values.text(v, f"{self._where}: field {n!r}"): n for n, v in given.items()}
        first_role = own[0].role if own else ""
        if first_role == "system":
            texts.pop(own[0].content, None)  # Said twice.
        if not texts:
            return []
        if first_role == TEXT_ROLE:
            raise UserError(
                f"{self._where}: field {list(texts.values())[-1]!r}: a row of plain text has no"
                " system turn; expected none, or the field's name in data.ignore_fields"
            )
        if len(texts) > 1 or first_role == "system":
            name = list(texts.values())[-1]
            raise UserError(
                f"{self._where}: field {name!r}: the row has another system text, too; expected"
                " one, or the field's name in data.ignore_fields"
            )
        return [Message("system", text) for text in texts]

    def _history(self) -> list[Message]:
        """Return the turns before the question, which LLaMA-Factory lists as pairs."""
        value = self._take("history")
        if value is None:
            return []
        place = f"{self._where}: field 'history'"
        expected = "a list of pairs of a question and its answer"
        messages = []
        for i, pair in enumerate(values.list_of(value, place, expected)):
            where = f"{self._where}: history[{i}]"
            texts = values.list_of(pair, where, "a question and its answer")
            if len(texts) != 2:
                raise UserError(f"{where}: expected a question and its answer, found {len(texts)}")
            for role, text in zip(("user", "assistant"), texts, strict=True):
                messages.append(Message(role, values.text(text, where)))
        return messages

    def _template_options(self) -> Mapping[str, Any]:
        value = self._take("chat_template_kwargs")
        place = f"{self._where}: field 'chat_template_kwargs'"
        given = {} if value is None else values.object_of(value, place, "an object of options")
        options = {name: option for name, option in given.items() if option is not None}
        for name in options:
            if not name.isidentifier() or name.startswith("_") or name in RESERVED_OPTIONS:
                raise UserError(f"{place}: {name!r} is no option of a template")
        switch = self._take(_SWITCH)
        if switch is None:
            return options
        place = f"{self._where}: field {_SWITCH!r}"
        if isinstance(switch, str | bytes):
            switch = values.parsed(switch, place, "true or false")
        if not isinstance(switch, bool):
            raise UserError(f"{place}: expected true or false, {values.found(switch)}")
        if options.get(_SWITCH, switch) != switch:
            raise UserError(f"{place}: is {switch}, but chat_template_kwargs says the contrary")
        return {**options, _SWITCH: switch}

    def _check_choices(
        self, choices: tuple[str, ...], own: list[Message], references: tuple[str, ...]
    ) -> None:
        if not choices or self._prompt_only:
            return
        place = f"{self._where}: field 'choices'"
        answers = [message for message in own if message.role == "assistant"]
        if len(answers) != 1 or own[-1] is not answers[0]:
            raise UserError(f"{place}: expected one answer, at the end; found {len(answers)}")
        answer = answers[0].content
        if not {answer, *references} & set(choices):
            raise UserError(
                f"{place}: expected the answer {answer!r} or a reference among them; found"
                f" {values.listed(choices)}"
            )

    def _without_answer(self, messages: list[Message]) -> list[Message]:
        if messages[-1].role == "assistant":
            messages = messages[:-1]
        if not messages or messages[-1].role == "system":
            raise UserError(
                f"{self._where}: field {self._shape.keys[0]!r}: expected a turn to answer, found"
                " none"
            )
        return messages


def _number(value: Any) -> Any:
    """Return a number whose JSON is given, as texts of SeqIO are; anything else as it is."""
    if not isinstance(value, str | bytes):
        return value
    try:
        return values.parsed(value, "", "a number")
    except UserError:
        return value
