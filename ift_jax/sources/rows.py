"""A source whose records are rows of published files.

A system's module says where the rows are and how one becomes a record. Nothing is looked for
before the examples are asked for, so that naming a system needs none of its data.
"""

import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ift_jax.data.randomness import Draws
from ift_jax.errors import UserError
from ift_jax.io.files import file_digest
from ift_jax.sources.base import PythonDataSource
from ift_jax.sources.hugging_face import dataset_files
from ift_jax.sources.row_files import StoredRow, read_rows, read_rows_where
from ift_jax.sources.validation_split import is_validation

Row = Mapping[str, Any]
# Makes a row's record. The draws are fixed by (seed, dataset, split, index of the example).
Render = Callable[[Row, Draws], Mapping[str, str]]
Expand = Callable[[Row], Sequence[Row]]


class OnlyRows(NamedTuple):
    """The rows that a source takes of files that hold more.

    Attributes:
        column: The field that tells the rows apart.
        wanted: The values of the rows to take.
        known: All values of the release. Any other is an error, so that no row is dropped unseen.
    """

    column: str
    wanted: tuple[str, ...]
    known: tuple[str, ...]


class RowsSource(PythonDataSource):
    """Records made of the rows of a data set.

    Args:
        name: The data set; see `ift_jax.sources.hugging_face.dataset_files`.
        render: Makes a record of a row, which may be taken to have any fields: a KeyError,
            TypeError or ValueError becomes a UserError that names the row.
        root: The folder of local data, or one file.
        splits: Our split -> the data set's. With `keep_out`, "validation" is made of "train".
        names: Our split -> its file names, where they are not named after the split.
        hub: Whether the package `datasets` can load it by its name.
        fields: The keys of every record.
        keep_out: If positive, one row of so many is "validation" and not "train", as
            `is_validation` says; the split "all" has every row. What a row expands to stays
            together.
        only: Which rows to take; None for all.
        expand: Makes several examples (or none) of a row.
    """

    def __init__(
        self,
        name: str,
        render: Render,
        root: str,
        *,
        splits: Mapping[str, str] | None = None,
        names: Mapping[str, Sequence[str]] | None = None,
        hub: bool = True,
        fields: tuple[str, ...] = ("messages",),
        keep_out: int = 0,
        only: OnlyRows | None = None,
        expand: Expand | None = None,
    ) -> None:
        self._name = name
        self._render = render
        self._root = root
        self._published = dict(splits or {"train": "train"})
        self._names = dict(names or {})
        self._hub = hub
        self._fields = fields
        self._keep_out = keep_out
        self._only = only
        self._expand = expand
        carved = ("validation", "all") if keep_out else ()
        super().__init__(tuple(dict.fromkeys((*self._published, *carved))))

    @property
    def fields(self) -> tuple[str, ...]:
        return self._fields

    @property
    def identity(self) -> Any:
        return [
            self._name,
            self._root,
            self._published,
            self._names,
            self._keep_out,
            self._only,
            [_function_name(self._render), self._expand and _function_name(self._expand)],
        ]

    @property
    def datasets(self) -> frozenset[str]:
        if self._only:
            return frozenset(f"{self._name}: {value}" for value in self._only.wanted)
        if "train" in self._published:
            return frozenset({self._name})
        # Files of other rows than "train" are data of their own.
        return frozenset({f"{self._name}/{'/'.join(self._published)}"})

    def options(self, split: str) -> Any:
        return [split, self.identity]

    def files(self, split: str) -> list[str]:
        self.check_split(split)
        is_carved = self._keep_out and split in ("validation", "all")
        ours = "train" if is_carved else split
        names = self._names.get(ours, ())
        return dataset_files(self._name, self._published[ours], self._root, names, self._hub)

    def file_fingerprint(self, path: str) -> str:
        return _file_digest(path, os.stat(path).st_mtime_ns)

    def rows(self, split: str) -> Iterator[StoredRow]:
        """Yield the rows of the split's files, before any is chosen or expanded."""
        for path in self.files(split):
            yield from read_rows(path)

    def items(self, split: str) -> Iterator[StoredRow]:
        for number, row in enumerate(self._chosen_rows(split)):
            if self._keep_out and split in ("train", "validation"):
                if is_validation(number, self._keep_out) != (split == "validation"):
                    continue
            if self._expand is None:
                yield row
                continue
            for example in _apply(self._expand, row):
                yield StoredRow(row.place, example)

    def _chosen_rows(self, split: str) -> Iterator[StoredRow]:
        only = self._only
        if only is None:
            yield from self.rows(split)
            return
        wanted = frozenset(only.wanted)
        known = frozenset(only.known)

        def is_wanted_or_unknown(value: Any) -> bool:
            return value in wanted or value not in known

        for path in self.files(split):
            for row in read_rows_where(path, only.column, is_wanted_or_unknown):
                value = row.value(only.column)
                if value not in wanted:
                    raise UserError(
                        f"{row.place}: {only.column} is {value!r}, none of the {len(known)} of "
                        "this release"
                    )
                yield row

    def render(self, item: StoredRow, split: str, index: int, seed: int) -> dict[str, str]:
        draws = Draws(seed, self._name, split, index)
        return dict(_apply(lambda row: self._render(row, draws), item))


@functools.lru_cache(maxsize=1024)
def _file_digest(path: str, mtime_ns: int) -> str:
    """Return the hash of a file, which is read once for all the tasks that read it."""
    return file_digest(path)


def _function_name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _apply(function: Callable[[Row], Any], row: StoredRow) -> Any:
    """Return what a function makes of a row.

    Raises:
        UserError: The row lacks a field or is not of this data set; names the row.
    """
    fields = row.fields()
    if not isinstance(fields, Mapping):
        raise UserError(f"{row.place}: expected an object, found {type(fields).__name__}")
    try:
        return function(fields)
    except KeyError as error:
        raise UserError(
            f"{row.place}: field {error.args[0]!r} is missing; found {', '.join(fields)}"
        ) from None
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(f"{row.place}: is not a row of this dataset ({error})") from None


def conversation(*turns: tuple[str, str]) -> dict[str, str]:
    """Return a chat record of (role, content) turns.

    Raises:
        ValueError: A content is no string.
    """
    for role, content in turns:
        if not isinstance(content, str):
            raise ValueError(f"the {role}'s text is {type(content).__name__}")
    messages = [{"role": role, "content": content} for role, content in turns]
    return {"messages": json.dumps(messages, ensure_ascii=False)}
