"""A source that reads JSON lines, plain or gzip: one record per line, text-to-text or chat."""

import dataclasses
import functools
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ift_jax.errors import UserError
from ift_jax.io.json_reader import json_kind, parse_json
from ift_jax.sources.base import PythonDataSource, expand_paths
from ift_jax.sources.json_lines import JsonLine, read_lines
from ift_jax.sources.layouts import LAYOUTS, alpaca_inputs
from ift_jax.sources.validation_split import is_validation
from ift_jax.text.records import Record, parse_record

_LAYOUT_NAMES = "; ".join(f"{name}: {', '.join(keys)}" for name, keys in LAYOUTS.items())
_VALIDATION_ONE_IN = 20  # Lines, where validation is carved out of training.


class _Layout(NamedTuple):
    """How the records of all files are laid out.

    Attributes:
        name: A key of `LAYOUTS`.
        keys: The file's fields, in the order of the layout's.
        references: The file's field of accepted answers; "" where there is none.
    """

    name: str
    keys: tuple[str, ...]
    references: str


class JsonLinesDataSource(PythonDataSource):
    """Records of JSON lines. Blank lines are skipped; everything else that is odd is a UserError.

    Args:
        files: Split -> path, glob pattern, or several of them. `.gz` is decompressed.
        fields: Our field -> the file's, such as {"inputs": "question", "targets": "answer"}. By
            default the first record decides between the layouts above; Alpaca's "input" may be
            missing. "references", accepted answers, are passed on where the first record has them.
        carve_validation: Makes the split "validation", where there is none, of one of each 20
            lines of "train" (none of fewer), as `is_validation` says.
        as_chat: Turns text-to-text records into chat records of two turns.
    """

    def __init__(
        self,
        files: Mapping[str, str | Sequence[str]],
        fields: Mapping[str, str] | None = None,
        *,
        carve_validation: bool = False,
        as_chat: bool = False,
    ) -> None:
        self._files = {split: expand_paths(paths) for split, paths in files.items()}
        self._mapping = dict(fields or {})
        self._as_chat = as_chat
        given = set(self._mapping) - {"references"}
        if self._mapping and given not in ({"inputs", "targets"}, {"messages"}):
            expected = "inputs and targets, or messages, and optionally references"
            raise UserError(f"fields: {sorted(self._mapping)}; expected {expected}")
        self._carved: set[str] = set()
        if carve_validation and "validation" not in self._files:
            first = list(itertools.islice(_lines(self._files["train"]), _VALIDATION_ONE_IN))
            if len(first) == _VALIDATION_ONE_IN:
                self._carved = {"train", "validation"}
        super().__init__((*self._files, "validation") if self._carved else self._files)

    def files(self, split: str) -> list[str]:
        self.check_split(split)
        return list(self._files["train" if split in self._carved else split])

    def options(self, split: str) -> Any:
        return [self._mapping or None, self._as_chat, split if split in self._carved else None]

    def items(self, split: str) -> Iterator[JsonLine]:
        lines = _lines(self.files(split))
        if split not in self._carved:
            return lines
        wanted = split == "validation"
        return (
            line
            for index, line in enumerate(lines)
            if is_validation(index, _VALIDATION_ONE_IN) == wanted
        )

    @property
    def is_chat(self) -> bool:
        """Whether the records are chat records, which have "messages"."""
        return self._as_chat or self._layout.name == "chat"

    @property
    def fields(self) -> tuple[str, ...]:
        texts = ("messages",) if self.is_chat else ("inputs", "targets")
        tools = ("tools",) if self._layout.name == "chat" else ()
        references = ("references",) if self._layout.references else ()
        return (*texts, *tools, *references)

    @functools.cached_property
    def _layout(self) -> _Layout:
        """The layout of the first record of all splits."""
        paths = [path for split in self._files.values() for path in split]
        first = next(_lines(paths), None)
        if first is None:
            raise UserError(f"{paths[0]}: holds no record; expected one JSON object per line")
        record = first.parse()
        mapping = self._mapping
        given = set(mapping or record)
        name = next((name for name, keys in LAYOUTS.items() if set(keys) <= given), None)
        if name is None:
            why = f"cannot tell the record's layout from its fields ({', '.join(record)})"
            raise UserError(f"{first.place}: {why}; expected one of {_LAYOUT_NAMES}")
        keys = tuple(mapping.get(key, key) for key in LAYOUTS[name])
        references = mapping.get("references", "references")
        return _Layout(name, keys, references if references in record else "")

    def render(self, item: JsonLine, split: str, index: int, seed: int) -> dict[str, str]:
        record = self._record(item)
        if self._layout.name == "chat":
            parse_record(record, item.place)  # Checked here, where the line is known.
        if self.is_chat:
            record["messages"] = json.dumps(record["messages"], ensure_ascii=False)
        return record

    def parsed(
        self, split: str, name: str, *, seed: int = 0, shard_index: int = 0, num_shards: int = 1
    ) -> Iterator[Record]:
        # Without the JSON text in between, which takes longer than checking a record.
        for index, item in self.items_of_shard(split, shard_index, num_shards):
            record = parse_record(self._record(item), item.place)
            yield dataclasses.replace(record, where=f"{name}:{split}:{index}")

    def _record(self, line: JsonLine) -> dict[str, Any]:
        """Return the record of a line: strings, and `messages` as a list."""
        fields = line.parse()
        layout = self._layout
        record: dict[str, Any]
        if layout.name == "chat":
            escaped = b"\\u" in line.content
            messages = _list(fields, layout.keys[0], line, "message objects", dict, escaped)
            tools = fields.get("tools")
            # "" where there are none: the records of a data set have the same keys.
            tools = json.dumps(tools, ensure_ascii=False) if tools else ""
            record = {"messages": messages, "tools": tools}
        else:
            inputs, targets = (_string(fields, key, line) for key in layout.keys)
            if layout.name == "alpaca" and "input" in fields:
                inputs = alpaca_inputs(inputs, _string(fields, "input", line))
            record = {"inputs": inputs, "targets": targets}
            if self._as_chat:
                turns = (("user", inputs), ("assistant", targets))
                record = {"messages": [{"role": role, "content": text} for role, text in turns]}
        if layout.references:
            values = _list(fields, layout.references, line, "strings", str)
            record["references"] = json.dumps(values, ensure_ascii=False)
        return record


def _lines(paths: Sequence[str]) -> Iterator[JsonLine]:
    for path in paths:
        yield from read_lines(path)


def _field(fields: Mapping[str, Any], key: str, line: JsonLine, kinds: Any, expected: str) -> Any:
    if isinstance(fields.get(key), kinds):
        return fields[key]
    if key in fields:
        found = json_kind(fields[key])
    else:
        found = f"missing (the line has: {', '.join(fields)})"
    raise UserError(f"{line.place}: field {key!r} is {found}; expected {expected}")


def _string(fields: Mapping[str, Any], key: str, line: JsonLine) -> str:
    return _encodable(_field(fields, key, line, str, "a string"), key, line)


def _list(
    fields: Mapping[str, Any],
    key: str,
    line: JsonLine,
    expected: str,
    kind: type,
    escaped: bool = True,
) -> list[Any]:
    r"""Return a field that is a list, or a JSON string of one.

    Args:
        fields: The object on the line.
        key: The field.
        line: Named by an error.
        expected: What the list holds, for an error.
        kind: The type of what the list holds.
        escaped: Whether the line has a `\u` escape, the only way to half of a surrogate pair.
    """
    value = _field(fields, key, line, list | str, f"a list of {expected}")
    if isinstance(value, str):
        value = parse_json(
            value, f"{line.place}: field {key!r}", expected=f"a list of {expected}", strict=True
        )
    if not (isinstance(value, list) and value and all(isinstance(v, kind) for v in value)):
        raise UserError(f"{line.place}: field {key!r}; expected a non-empty list of {expected}")
    if escaped:
        _encodable(json.dumps(value, ensure_ascii=False), key, line)
    return value


def _encodable(text: str, key: str, line: JsonLine) -> str:
    if not text.isascii() and re.search("[\\ud800-\\udfff]", text):
        raise UserError(f"{line.place}: field {key!r}: holds half of a surrogate pair")
    return text
