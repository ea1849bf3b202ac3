"""Tasks whose examples are rows of published files: the source, and its registration.

A system's module says where the rows lie and how one becomes a record; everything is looked
for only when the examples are asked for, so that naming a system needs none of its data.
"""

import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ift_jax.data.randomness import Draws, hash64
from ift_jax.errors import UserError
from ift_jax.io.files import file_digest
from ift_jax.sources.base import PythonDataSource
from ift_jax.sources.hugging_face import dataset_files, read_rows, row_of

Row = Mapping[str, Any]
# A row's record. The draws are fixed by (seed, dataset, split, place of the row).
Render = Callable[[Row, Draws], Mapping[str, str]]
Expand = Callable[[Row], Sequence[Row]]


class RowsSource(PythonDataSource):
    """Records made of the rows of a dataset.

    Args:
      name: the dataset, see `ift_jax.sources.hugging_face.dataset_files`.
      render: makes a record of a row, which it may take to have any fields (a KeyError, TypeError
        or ValueError becomes a UserError that names the row).
      root: the folder of local data, or one file.
      splits: our split -> the dataset's. With `keep_out` "validation" is made of "train".
      names: our split -> its file names, where they are not called after the split.
      hub: whether the dataset can be loaded by its name.
      fields: the fields of every record.
      keep_out: > 0: one row of so many is "validation" and not "train", chosen by a hash as
        `tasks.jsonl` does; the split "all" has every row. What a row expands to stays together.
      only: (column, values, all known values): rows of those values alone. A value that is not
        known raises a UserError: no row is dropped unseen.
      expand: makes several examples (or none) of a row.
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
        only: tuple[str, tuple[str, ...], tuple[str, ...]] | None = None,
        expand: Expand | None = None,
    ) -> None:
        self._name, self._render, self._root, self._hub = name, render, root, hub
        self._published = dict(splits or {"train": "train"})
        self._names = dict(names or {})
        self._fields, self._keep_out, self._only, self._expand = fields, keep_out, only, expand
        made = ("validation", "all") if keep_out else ()
        super().__init__(tuple(dict.fromkeys((*self._published, *made))))

    @property
    def fields(self) -> tuple[str, ...]:
        return self._fields

    @property
    def identity(self) -> Any:
        """What tells one source from another, without a look at any file."""
        functions = [f and f"{f.__module__}.{f.__qualname__}" for f in (self._render, self._expand)]
        return [
            self._name,
            self._root,
            self._published,
            self._names,
            self._keep_out,
            self._only,
            functions,
        ]

    @property
    def datasets(self) -> frozenset[str]:
        name = self._name
        if self._only:
            return frozenset(f"{name}: {value}" for value in self._only[1])
        # Files of other rows than "train" are data of their own.
        own = "train" in self._published
        return frozenset({name if own else f"{name}/{'/'.join(self._published)}"})

    def options(self, split: str) -> Any:
        return [split, self.identity]

    def files(self, split: str) -> list[str]:
        self.check_split(split)
        ours = "train" if self._keep_out and split in ("validation", "all") else split
        names = self._names.get(ours, ())
        return dataset_files(self._name, self._published[ours], self._root, names, self._hub)

    def file_fingerprint(self, path: str) -> str:
        return _file_hash(path, os.stat(path).st_mtime_ns)

    def rows(self, split: str) -> Iterator[tuple[str, Any, int]]:
        """Yields the rows of the split's files, before any is chosen or expanded."""
        for path in self.files(split):
            yield from read_rows(path)

    def items(self, split: str) -> Iterator[tuple[str, Any, int]]:
        n = self._keep_out
        for number, (place, held, i) in enumerate(self._chosen(split)):
            if n and split in ("train", "validation"):
                kept_out = number % n == hash64("validation", number // n) % n
                if kept_out != (split == "validation"):
                    continue
            if self._expand is None:
                yield place, held, i
                continue
            for example in _checked(place, self._expand, row_of(held, i)):
                yield place, example, 0

    def _chosen(self, split: str) -> Iterator[tuple[str, Any, int]]:
        if self._only is None:
            yield from self.rows(split)
            return
        column, wanted, all_known = self._only
        known = frozenset(all_known)
        for path in self.files(split):
            parquet = path.endswith(".parquet")
            rows = _parquet_rows(path, column, wanted, known) if parquet else read_rows(path)
            for place, held, i in rows:
                arrow = isinstance(held, pa.RecordBatch)
                value = held.column(column)[i].as_py() if arrow else row_of(held, i).get(column)
                if value in wanted:
                    yield place, held, i
                elif value not in known:
                    raise UserError(
                        f"{place}: {column} is {value!r}, none of the {len(known)} of this release"
                    )

    def render(
        self, item: tuple[str, Any, int], split: str, index: int, seed: int
    ) -> dict[str, str]:
        place, held, i = item
        draws = Draws(seed, self._name, split, index)
        return dict(_checked(place, lambda row: self._render(row, draws), row_of(held, i)))


def _parquet_rows(
    path: str, column: str, wanted: tuple[str, ...], known: frozenset[str]
) -> Iterator[tuple[str, Any, int]]:
    """`read_rows` of the rows that are wanted or unknown; other row groups are not decoded.

    The many tasks of a mixture read the same files: a pass must cost its own rows, not all.
    """
    try:
        file, first = pq.ParquetFile(path), 0
        for group in range(file.num_row_groups):
            values = file.read_row_group(group, [column])[column].to_pylist()
            here = [k for k, v in enumerate(values) if v in wanted or v not in known]
            if here:
                [batch] = file.read_row_group(group).combine_chunks().to_batches()
                yield from ((f"{path}: row {first + k}", batch, k) for k in here)
            first += len(values)
    except (pa.ArrowInvalid, KeyError) as error:
        raise UserError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None


@functools.lru_cache(maxsize=1024)
def _file_hash(path: str, mtime_ns: int) -> str:
    """Return the hash of a file, which is read once however many tasks of a mixture read it."""
    return file_digest(path)


def _checked(place: str, function: Callable[[Row], Any], row: Row) -> Any:
    if not isinstance(row, Mapping):
        raise UserError(f"{place}: expected an object, found {type(row).__name__}")
    try:
        return function(row)
    except KeyError as error:
        raise UserError(
            f"{place}: field {error.args[0]!r} is missing; found {', '.join(row)}"
        ) from None
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(f"{place}: is not a row of this dataset ({error})") from None


def conversation(*turns: tuple[str, str]) -> dict[str, str]:
    """Returns a chat record of (role, content) turns."""
    for role, content in turns:
        if not isinstance(content, str):
            raise ValueError(f"the {role}'s text is {type(content).__name__}")
    messages = [{"role": role, "content": content} for role, content in turns]
    return {"messages": json.dumps(messages, ensure_ascii=False)}
