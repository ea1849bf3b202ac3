"""JSON lines, plain or gzip: one object a line, text-to-text or chat."""

import collections
import contextlib
import dataclasses
import functools
import gzip
import itertools
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ift_jax.data.randomness import hash64
from ift_jax.errors import UserError
from ift_jax.sources.base import PythonDataSource, expand_paths
from ift_jax.text.records import Record, parse_record

# Records are recognised by the fields of the first one, in this order.
_LAYOUTS: Mapping[str, tuple[str, ...]] = {
    "chat": ("messages",),
    "text": ("inputs", "targets"),
    "completion": ("prompt", "completion"),
    "alpaca": ("instruction", "output"),
}
_LAYOUT_NAMES = "; ".join(f"{name}: {', '.join(keys)}" for name, keys in _LAYOUTS.items())
_Line = tuple[str, int, bytes]  # Path, number, content.
_BLOCK = 20  # Of every 20 lines one is for validation, where that is carved out of training.


class JsonLinesDataSource(PythonDataSource):
    """Reads JSON lines; skips blank ones. Everything else that is odd is a UserError.

    Args:
      files: split -> path, glob pattern, or several of them. `.gz` is decompressed.
      fields: our field -> the file's, e.g. {"inputs": "question", "targets": "answer"}. By
        default the first record decides between the layouts above; Alpaca's "input" may be
        missing. "references", accepted answers, are passed on where the first record has them.
      carve_validation: makes the split "validation", where there is none, of one of each 20
        lines of "train" (none of fewer), chosen by a hash: appended lines move no other.
      as_chat: turns text-to-text records into chat records of two turns.
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
        if fields and set(fields) - {"references"} not in ({"inputs", "targets"}, {"messages"}):
            expected = "inputs and targets, or messages, and optionally references"
            raise UserError(f"fields: {sorted(fields)}; expected {expected}")
        self._as_chat, self._carved = as_chat, set[str]()
        if carve_validation and "validation" not in self._files:
            first = itertools.islice(self._lines(self._files["train"]), _BLOCK)
            self._carved = {"train", "validation"} if len(list(first)) == _BLOCK else set()
        super().__init__((*self._files, "validation") if self._carved else self._files)

    def files(self, split: str) -> list[str]:
        self.check_split(split)
        return list(self._files["train" if split in self._carved else split])

    def options(self, split: str) -> Any:
        return [self._mapping or None, self._as_chat, split if split in self._carved else None]

    def items(self, split: str) -> Iterator[_Line]:
        lines = self._lines(self.files(split))
        if split not in self._carved:
            return lines
        drawn = (hash64("validation", block) % _BLOCK for block in itertools.count())
        held_out = (i == chosen for chosen in drawn for i in range(_BLOCK))
        wanted = split == "validation"
        return (line for line, held in zip(lines, held_out, strict=False) if held == wanted)

    def _lines(self, paths: Sequence[str]) -> Iterator[_Line]:
        for path in paths:
            number = 0
            try:
                with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
                    for number, line in enumerate(file, 1):  # noqa: B007 (the error names it)
                        if line.strip():
                            yield path, number, line
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise UserError(f"{path}:{number + 1}: broken gzip file ({error})") from None

    @property
    def is_chat(self) -> bool:
        """Whether the records are chat records, i.e. have "messages"."""
        return self._as_chat or self._layout[0] == "chat"

    @property
    def fields(self) -> tuple[str, ...]:
        extra: tuple[str, ...] = ("tools",) if self._layout[0] == "chat" else ()
        extra += ("references",) if self._layout[2] else ()
        return (("messages",) if self.is_chat else ("inputs", "targets")) + extra

    @functools.cached_property
    def _layout(self) -> tuple[str, tuple[str, ...], str]:
        """Of the first record of all splits: layout, the file's fields of it and of references."""
        paths = [path for split in self._files.values() for path in split]
        first = next(self._lines(paths), None)
        if first is None:
            raise UserError(f"{paths[0]}: holds no record; expected one JSON object a line")
        record, mapping = parse_line(*first), self._mapping
        layouts = [name for name, keys in _LAYOUTS.items() if {*keys} <= {*(mapping or record)}]
        if not layouts:
            why = f"cannot tell the record's layout from its fields ({', '.join(record)})"
            raise UserError(f"{first[0]}:{first[1]}: {why}; expected one of {_LAYOUT_NAMES}")
        references = mapping.get("references", "references")
        keys = tuple(mapping.get(key, key) for key in _LAYOUTS[layouts[0]])
        return layouts[0], keys, references if references in record else ""

    def render(self, item: _Line, split: str, index: int, seed: int) -> dict[str, str]:
        record = self._record(item)
        if self._layout[0] == "chat":
            parse_record(record, f"{item[0]}:{item[1]}")  # Here its line is known.
        if self.is_chat:
            record["messages"] = json.dumps(record["messages"], ensure_ascii=False)
        return record

    def parsed(
        self, split: str, name: str, *, seed: int = 0, shard_index: int = 0, num_shards: int = 1
    ) -> Iterator[Record]:
        # Without the JSON in between, which takes longer than to check a record.
        for index, item in self.items_of_shard(split, shard_index, num_shards):
            record = parse_record(self._record(item), f"{item[0]}:{item[1]}")
            yield dataclasses.replace(record, where=f"{name}:{split}:{index}")

    def _record(self, item: _Line) -> dict[str, Any]:
        """The record of a line: strings, and `messages` a list."""
        fields, where = parse_line(*item), f"{item[0]}:{item[1]}"
        layout, keys, references = self._layout
        record: dict[str, Any]
        if layout == "chat":
            escaped = b"\\u" in item[2]
            messages = _list(fields, keys[0], where, "message objects", dict, escaped)
            tools = fields.get("tools")
            # In every record, since those of a dataset have the same keys.
            tools = json.dumps(tools, ensure_ascii=False) if tools else ""
            record = {"messages": messages, "tools": tools}
        else:
            inputs, targets = (_string(fields, key, where) for key in keys)
            if layout == "alpaca" and fields.get("input", "") != "":
                inputs += "\n\n" + _string(fields, "input", where)
            record = {"inputs": inputs, "targets": targets}
            if self._as_chat:
                roles = (("user", inputs), ("assistant", targets))
                record = {"messages": [{"role": role, "content": text} for role, text in roles]}
        if references:
            values = _list(fields, references, where, "strings", str)
            record["references"] = json.dumps(values, ensure_ascii=False)
        return record


def _field(fields: Mapping[str, Any], key: str, where: str, kinds: Any, expected: str) -> Any:
    if isinstance(fields.get(key), kinds):
        return fields[key]
    missing = f"missing (the line has: {', '.join(fields)})"
    found = _kind(fields[key]) if key in fields else missing
    raise UserError(f"{where}: field {key!r} is {found}; expected {expected}")


def _string(fields: Mapping[str, Any], key: str, where: str) -> str:
    return _encodable(_field(fields, key, where, str, "a string"), key, where)


def _list(
    fields: Mapping[str, Any], key: str, where: str, expected: str, kind: type, escaped: bool = True
) -> list[Any]:
    """A list (or a JSON string of one) of `kind`; half a surrogate pair is only ever `escaped`."""
    value = _field(fields, key, where, list | str, f"a list of {expected}")
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    if not (isinstance(value, list) and value and all(isinstance(v, kind) for v in value)):
        raise UserError(f"{where}: field {key!r}; expected a non-empty list of {expected}")
    if escaped:
        _encodable(json.dumps(value, ensure_ascii=False), key, where)
    return value


def _encodable(text: str, key: str, where: str) -> str:
    if not text.isascii() and re.search("[\\ud800-\\udfff]", text):
        raise UserError(f"{where}: field {key!r}: holds half of a surrogate pair")
    return text


class _Twice(Exception):
    """A key that an object has more than once."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(result := dict(pairs)) != len(pairs):
        raise _Twice(collections.Counter(key for key, _ in pairs).most_common(1)[0][0])
    return result


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)  # `json.loads` would make one a line.


def parse_line(path: str, number: int, line: bytes) -> dict[str, Any]:
    """The object of one JSON line; a UserError names path and line."""
    where = f"{path}:{number}"
    try:
        text = line.rstrip(b"\r\n").decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: byte {error.start + 1} is not valid UTF-8") from None
    try:
        # A byte order mark has an error of its own there.
        value = json.loads(text) if text.startswith("\ufeff") else _DECODER.decode(text)
    except _Twice as error:
        raise UserError(f"{where}: key {str(error)!r} occurs twice in one object") from None
    except json.JSONDecodeError as error:
        why = f"column {error.colno}: {error.msg}"
        raise UserError(f"{where}: {why}; expected one JSON object on the line") from None
    except RecursionError:
        raise UserError(f"{where}: nested too deeply to be a record") from None
    if not isinstance(value, dict):
        raise UserError(f"{where}: the line is {_kind(value)}; expected a JSON object")
    return value


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}
    return "null" if value is None else names.get(type(value), "a number")
