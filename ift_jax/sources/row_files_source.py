"""A source of rows of files: JSON lines, a JSON array, Parquet, or Arrow.

Whatever a row is, `ift_jax.text.rows` reads it.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from ift_jax.errors import UserError
from ift_jax.sources.base import PythonDataSource, expand_paths
from ift_jax.sources.row_files import StoredRow, count_rows, read_rows
from ift_jax.sources.row_values import plain, scalar_text
from ift_jax.sources.validation_split import is_validation
from ift_jax.text.records import Record
from ift_jax.text.rows import canonical, shapes
from ift_jax.text.rows.alike import with_count
from ift_jax.text.rows.parse_record import AUTOMATIC, RowOptions, parse_record
from ift_jax.text.turn_rules import AS_GIVEN, TurnRules

_VALIDATION_ONE_IN = 20  # Rows, where validation is carved out of training.
_MAPPED = {"inputs", "targets", "messages", "system", "history", "tools", "references", "choices"}


class RowFilesSource(PythonDataSource):
    """Records of rows of files.

    Args:
        files: Split -> path, glob pattern, or several of them; the ending says what a file is.
        fields: Our field -> the file's, such as {"inputs": "question", "targets": "answer"}. By
            default the fields of the first row say what rows are; see `shapes.SHAPES`.
        carve_validation: Makes the split "validation", where there is none, of one of each 20 rows
            of "train" (none of fewer), as `is_validation` says.
        all_split: Makes the split "all" of every row of "train" and what is carved out of it.
        as_chat: Turns pairs of texts into conversations of two turns.
        options: How rows are read.
        turn_rules: What is done with turns in an unusual order, before the config's own rules.

    Raises:
        UserError: A file is missing, or `fields` has an unknown field.
    """

    def __init__(
        self,
        files: Mapping[str, str | Sequence[str]],
        fields: Mapping[str, str] | None = None,
        *,
        carve_validation: bool = False,
        all_split: bool = False,
        as_chat: bool = False,
        options: RowOptions = AUTOMATIC,
        turn_rules: TurnRules = AS_GIVEN,
    ) -> None:
        self._files = {split: expand_paths(paths) for split, paths in files.items()}
        self._mapping = dict(fields or {})
        self._as_chat = as_chat
        self._options = options
        self._turn_rules = turn_rules
        given = self._mapping.keys() & {"inputs", "targets", "messages"}
        unknown = self._mapping.keys() - _MAPPED
        if unknown or (self._mapping and given not in ({"inputs", "targets"}, {"messages"})):
            expected = f"inputs and targets, or messages, and of {', '.join(sorted(_MAPPED))}"
            raise UserError(f"fields: {sorted(self._mapping)}; expected {expected}")
        self._given_fields: dict[str, set[str]] = {}  # By split.
        self._carved: set[str] = set()
        if carve_validation and "validation" not in self._files:
            first = list(itertools.islice(_rows(self._files["train"]), _VALIDATION_ONE_IN))
            if len(first) == _VALIDATION_ONE_IN:
                self._carved = {"train", "validation"}
        more = [*self._carved - self._files.keys(), *(["all"] if all_split else [])]
        super().__init__((*self._files, *more))

    def files(self, split: str) -> list[str]:
        self.check_split(split)
        is_train = split in self._carved or split == "all" and "all" not in self._files
        return list(self._files["train" if is_train else split])

    def options(self, split: str) -> Any:
        return [
            self._mapping or None,
            self._as_chat,
            split if split in self._carved else None,
            [self._options.schema, sorted(self._options.ignored)],
            repr(self._turn_rules),
        ]

    def num_input_examples(self, split: str) -> int:
        if split in self._carved:
            return super().num_input_examples(split)
        return sum(map(count_rows, self.files(split)))  # Parquet states it.

    def items(self, split: str) -> Iterator[StoredRow]:
        rows = _rows(self.files(split))
        if split not in self._carved:
            return rows
        wanted = split == "validation"
        return (
            row
            for index, row in enumerate(rows)
            if is_validation(index, _VALIDATION_ONE_IN) == wanted
        )

    @functools.cached_property
    def is_chat(self) -> bool:
        """Whether the records are conversations, which have "messages"."""
        if self._as_chat or not self._shape.is_pair_of_texts(self._given(self._first_row)):
            return True
        try:
            # A pair of texts with tools or options of the template is more than fields of a pair.
            return canonical.pair_fields(self._record(self._first_row)) is None
        except UserError:
            return False  # The row is refused where rows are read, with the others like it.

    @property
    def fields(self) -> tuple[str, ...]:
        return canonical.CHAT_FIELDS if self.is_chat else canonical.PAIR_FIELDS

    def dataset_fields(self, split: str) -> tuple[str, ...]:
        optional = (
            canonical.OPTIONAL_CHAT_FIELDS if self.is_chat else canonical.OPTIONAL_PAIR_FIELDS
        )
        if split not in self._given_fields:  # Any row may be the first that has one of them.
            names = set[str]()
            for record in self.records(split):
                names.update(record)
            self._given_fields[split] = names
        given = self._given_fields[split]
        return (*self.fields, *(name for name in optional if name in given))

    def text_of(self, record: Mapping[str, str], field: str) -> str:
        return record.get(field, "")

    @property
    def shape(self) -> str:
        """What the rows are, such as "ShareGPT conversations"."""
        return self._shape.title

    @functools.cached_property
    def _shape(self) -> shapes.Shape:
        row = self._first_row
        return shapes.recognize(self._given(row), row.place, self._options.schema)

    @functools.cached_property
    def _fixed_options(self) -> RowOptions:
        """The options, with the shape of the first row: all rows have it."""
        return dataclasses.replace(self._options, schema=self._shape.name)

    @functools.cached_property
    def _first_row(self) -> StoredRow:
        """The first row of all splits."""
        paths = [path for split in self._files.values() for path in split]
        first = next(_rows(paths), None)
        if first is None:
            raise UserError(f"{paths[0]}: holds no row; expected at least one")
        return first

    def render(self, item: StoredRow, split: str, index: int, seed: int) -> dict[str, str]:
        record = self._record(item)
        if self.is_chat:
            return canonical.chat_fields(record)
        fields = canonical.pair_fields(record)
        if fields is None:
            raise UserError(
                f"{item.place}: is a conversation, or has tools or options of the template, where"
                " the first row is just a pair of texts; put a row like it first"
            )
        return fields

    def parsed(
        self, split: str, name: str, *, seed: int = 0, shard_index: int = 0, num_shards: int = 1
    ) -> Iterator[Record]:
        # Without the JSON text in between, which takes longer than checking a record.
        rows = self.items_of_shard(split, shard_index, num_shards)
        for _, row in rows:
            try:
                record = self._record(row)
            except UserError as error:
                later = (functools.partial(self._record, row) for _, row in rows)
                raise with_count(error, later) from None
            yield record

    def _record(self, row: StoredRow) -> Record:
        try:
            record = parse_record(
                self._given(row),
                row.place,
                options=self._fixed_options,
                keep_nulls=not isinstance(row.content, pa.RecordBatch),
            )
        except UserError as error:
            raise UserError(self._in_their_words(str(error))) from None
        if self._as_chat or record.tools or record.template_options:
            record = dataclasses.replace(record, text_to_text=False)
        if self._turn_rules is AS_GIVEN:
            return record
        ordered = self._turn_rules.apply(record)
        return record if isinstance(ordered, str) else ordered

    def _in_their_words(self, message: str) -> str:
        """Return a message with the file's names for fields."""
        for ours, theirs in self._mapping.items():
            message = message.replace(f"field {ours!r}", f"field {theirs!r}")
        return message

    def _given(self, row: StoredRow) -> Mapping[str, Any]:
        """Return the fields of a row, under our names."""
        fields = row.fields()
        if not isinstance(fields, Mapping):
            raise UserError(f"{row.place}: expected an object, found {type(fields).__name__}")
        is_json = not isinstance(row.content, pa.RecordBatch)
        if not is_json:
            fields = plain(fields)
        if not self._mapping:
            return fields
        taken = set(self._mapping.values())
        renamed = {name: value for name, value in fields.items() if name not in taken}
        for ours, theirs in self._mapping.items():
            if theirs in fields:
                renamed[ours] = fields[theirs] if is_json else scalar_text(fields[theirs])
            elif ours in ("inputs", "targets", "messages"):
                raise shapes.missing(theirs, fields, row.place)
        return renamed


def sources_of_a_mixture(
    files: Iterable[Mapping[str, str | Sequence[str]]], options: RowOptions
) -> list[RowFilesSource]:
    """Makes sources whose records have the same features, as the tasks of a mixture must.

    Where some are conversations, pairs of texts become conversations as well.

    Args:
        files: Split -> paths of each source; a validation split is carved where there is none.
        options: How rows are read.
    """

    def source(splits: Mapping[str, str | Sequence[str]], as_chat: bool) -> RowFilesSource:
        return RowFilesSource(splits, carve_validation=True, as_chat=as_chat, options=options)

    every = list(files)
    sources = [source(splits, as_chat=False) for splits in every]
    are_chat = [made.is_chat for made in sources]
    if all(are_chat) or not any(are_chat):
        return sources
    return [source(splits, as_chat=True) for splits in every]


def _rows(paths: Sequence[str]) -> Iterator[StoredRow]:
    for path in paths:
        yield from read_rows(path)
