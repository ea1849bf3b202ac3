"""JSON lines, plain or gzip: one object a line, text-to-text or chat."""

import gzip
import itertools
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ift_jax.errors import UserError
from ift_jax.sources.base import PythonDataSource, expand_paths
from ift_jax.sources.draws import hash64
from ift_jax.text.records import parse_record

# Records are recognised by the fields of the first one, in this order.
_LAYOUTS: Mapping[str, tuple[str, ...]] = {
    "chat": ("messages",),
    "text": ("inputs", "targets"),
    "completion": ("prompt", "completion"),
    "alpaca": ("instruction", "output"),
}
_LAYOUT_NAMES = "; ".join(f"{name}: {', '.join(keys)}" for name, keys in _LAYOUTS.items())
_BLOCK = 20  # Of every 20 lines one is for validation, where that is carved out of training.


class JsonLinesDataSource(PythonDataSource):
    """Reads JSON lines. Blank lines are skipped; everything else that is odd is a UserError.

    Args:
      files: split -> path, glob pattern, or several of them. `.gz` is decompressed.
      fields: our field -> the file's, e.g. {"inputs": "question", "targets": "answer"} or
        {"messages": "conversation"}. By default the first record decides between "messages"
        (chat), "inputs" and "targets", "prompt" and "completion", and Alpaca's
        "instruction", "input" (may be missing) and "output". "references", a list of
        accepted answers, is passed on (as JSON) where the first record has it.
      carve_validation: makes the split "validation", where there is none, of 5% of the lines
        of "train": one of each 20, chosen by a hash; none of fewer than 20 lines. Appending
        lines moves no line from one split to the other.
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
        self._mapping = dict(fields) if fields else None
        if fields and set(fields) - {"references"} not in ({"inputs", "targets"}, {"messages"}):
            raise UserError(
                f"fields: {sorted(fields)}; expected inputs and targets, or messages, "
                "and optionally references"
            )
        self._as_chat = as_chat
        self._layout: tuple[str, tuple[str, ...]] | None = None
        self._carved = carve_validation and "validation" not in self._files
        if self._carved:
            first = itertools.islice(self._lines(self._files["train"]), _BLOCK)
            self._carved = len(list(first)) == _BLOCK
        super().__init__((*self._files, "validation") if self._carved else self._files)

    def files(self, split: str) -> list[str]:
        self.check_split(split)
        return list(self._files["train" if self._carves(split) else split])

    def options(self, split: str) -> Any:
        return [self._mapping, self._as_chat, split if self._carves(split) else None]

    def _carves(self, split: str) -> bool:
        return self._carved and split in ("train", "validation")

    def items(self, split: str) -> Iterator[tuple[str, int, bytes]]:
        lines = self._lines(self.files(split))
        if not self._carves(split):
            return lines
        wanted = split == "validation"
        return (line for i, line in enumerate(lines) if _for_validation(i) == wanted)

    def _lines(self, paths: Sequence[str]) -> Iterator[tuple[str, int, bytes]]:
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
        return self._as_chat or self._detect()[0] == "chat"

    @property
    def fields(self) -> tuple[str, ...]:
        extra = tuple(key for key in self._detect()[1] if key == "references")
        return (("messages",) if self.is_chat else ("inputs", "targets")) + extra

    def _detect(self) -> tuple[str, tuple[str, ...]]:
        """Returns the layout's name and the extra keys of the first record of all splits."""
        if self._layout is None:
            paths = [path for split in self._files.values() for path in split]
            first = next(self._lines(paths), None)
            if first is None:
                raise UserError(f"{paths[0]}: holds no record; expected one JSON object a line")
            record = parse_line(*first)
            if self._mapping:
                name = "chat" if "messages" in self._mapping else "text"
            else:
                found = (n for n, keys in _LAYOUTS.items() if all(k in record for k in keys))
                name = next(found, "")
            if not name:
                raise UserError(
                    f"{first[0]}:{first[1]}: cannot tell the record's layout from its fields "
                    f"({', '.join(record)}); expected one of {_LAYOUT_NAMES}"
                )
            references = (self._mapping or {}).get("references", "references")
            self._layout = name, (("references",) if references in record else ())
        return self._layout

    def render(
        self, item: tuple[str, int, bytes], split: str, index: int, seed: int
    ) -> dict[str, str]:
        path, number, line = item
        fields = parse_line(path, number, line)
        layout, extra = self._detect()
        take = _Taker(fields, f"{path}:{number}", self._mapping or {})
        if layout == "chat":
            record = {"messages": take.json_list("messages", "message objects", dict)}
            tools = {"tools": fields["tools"]} if "tools" in fields else {}
            parse_record(record | tools, f"{path}:{number}")  # Here its line is known.
        else:
            record = dict(zip(("inputs", "targets"), take.pair(layout), strict=True))
            if self._as_chat:
                roles = zip(("user", "assistant"), record.values(), strict=True)
                turns = [{"role": role, "content": text} for role, text in roles]
                record = {"messages": json.dumps(turns, ensure_ascii=False)}
        if extra:
            record["references"] = take.json_list("references", "strings", str)
        return record


class _Taker:
    """Takes checked fields out of one parsed line."""

    def __init__(self, fields: Mapping[str, Any], where: str, mapping: Mapping[str, str]) -> None:
        self._fields, self._where, self._mapping = fields, where, mapping

    def _get(self, key: str, expected: str, valid: Callable[[Any], bool]) -> Any:
        key = self._mapping.get(key, key)
        if key not in self._fields:
            raise UserError(
                f"{self._where}: field {key!r} is missing (the line has: "
                f"{', '.join(self._fields)}); expected {expected}"
            )
        value = self._fields[key]
        if not valid(value):
            raise UserError(f"{self._where}: field {key!r} is {_kind(value)}; expected {expected}")
        return value

    def string(self, key: str) -> str:
        value = self._get(key, "a string", lambda value: isinstance(value, str))
        return _encodable(value, f"{self._where}: field {key!r}")

    def pair(self, layout: str) -> tuple[str, str]:
        """Returns the inputs and targets of a text-to-text layout."""
        if layout != "alpaca":
            inputs, targets = _LAYOUTS[layout]
            return self.string(inputs), self.string(targets)
        context = self.string("input") if "input" in self._fields else ""
        instruction = self.string("instruction")
        return f"{instruction}\n\n{context}" if context else instruction, self.string("output")

    def json_list(self, key: str, expected: str, kind: type) -> str:
        """Returns a list (or a JSON string of one) of `kind` as JSON."""
        value = self._get(key, f"a list of {expected}", lambda value: isinstance(value, list | str))
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                value = None
        if not (isinstance(value, list) and value and all(isinstance(v, kind) for v in value)):
            raise UserError(
                f"{self._where}: field {key!r}; expected a non-empty list of {expected}"
            )
        text = json.dumps(value, ensure_ascii=False)
        return _encodable(text, f"{self._where}: field {key!r}")


def _for_validation(i: int) -> bool:
    return i % _BLOCK == hash64("validation", i // _BLOCK) % _BLOCK


def parse_line(path: str, number: int, line: bytes) -> dict[str, Any]:
    """Returns the object of one JSON line; raises a UserError that names path and line."""
    where = f"{path}:{number}"
    try:
        text = line.rstrip(b"\r\n").decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: byte {error.start + 1} is not valid UTF-8") from None

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise UserError(f"{where}: key {twice!r} occurs twice in one object")
        return result

    try:
        value = json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{where}: column {error.colno}: {error.msg}; expected one JSON object on the line"
        ) from None
    except RecursionError:
        raise UserError(f"{where}: nested too deeply to be a record") from None
    if not isinstance(value, dict):
        raise UserError(f"{where}: the line is {_kind(value)}; expected a JSON object")
    return value


def _encodable(text: str, where: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{where}: holds half of a surrogate pair (\\ud800..\\udfff)") from None
    return text


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}
    return "null" if value is None else names.get(type(value), "a number")
