"""Rows of a TensorFlow Datasets dataset, or of local files that hold the same rows, as records."""

import gzip
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pyarrow.parquet as pq

from ift_jax.errors import UserError
from tasks.sources.base import PythonDataSource
from tasks.sources.draws import Draws
from tasks.sources.jsonl import parse_line

Row = dict[str, Any]


class TfdsRowsSource(PythonDataSource):
    """Reads `<root>/<dataset>/<split>.jsonl[.gz]` or `.parquet`; else what TFDS has prepared.

    Args:
      dataset: TFDS's name: "glue/mnli", "squad/v1.1:3.0.0".
      render: (row, draws, split) -> record. A row is a dict of plain Python values.
      splits: our split -> TFDS's.
      root: the folder of local files, and perhaps of TFDS's; "": TFDS's own.
      fields: the keys of every record.
      expand: (row, split) -> the rows that it becomes; none drops it.
      caps: split -> records at the most, the first ones.
    """

    fields: tuple[str, ...] = ()

    def __init__(
        self,
        dataset: str,
        render: Callable[[Row, Draws, str], dict[str, str]],
        splits: Mapping[str, str],
        root: str = "",
        fields: tuple[str, ...] = ("inputs", "targets"),
        expand: Callable[[Row, str], Iterable[Row]] = lambda row, split: (row,),
        caps: Mapping[str, int] | None = None,
    ) -> None:
        self._dataset, self._names, self.fields = dataset, dict(splits), fields
        self._root = os.path.abspath(root) if root else ""
        self._render, self._expand, self._caps = render, expand, caps or {}
        super().__init__(splits)

    def files(self, split: str) -> list[str]:
        stem = os.path.join(self._root, self._dataset.partition(":")[0], self._names[split])
        paths = [stem + ending for ending in (".jsonl", ".jsonl.gz", ".parquet")]
        return [path for path in paths if self._root and os.path.isfile(path)][:1]

    @property
    def datasets(self) -> frozenset[str]:
        return frozenset({self._dataset.partition(":")[0]})

    def options(self, split: str) -> Any:
        cap, bound = self._caps.get(split), getattr(self._render, "keywords", {})
        return [self._dataset, self._names[split], cap, sorted(map(repr, bound.items()))]

    def fingerprint(self, split: str) -> str:  # TFDS's data never change under one version.
        name = "" if self.files(split) else self._tfds(split)[0].info.full_name
        return super().fingerprint(split) + name

    def items(self, split: str) -> Iterator[Row]:
        rows = (new for row in self._rows(split) for new in self._expand(row, split))
        return itertools.islice(rows, self._caps.get(split))

    def _rows(self, split: str) -> Iterator[Row]:
        for path in self.files(split):
            if path.endswith(".parquet"):
                batches = pq.ParquetFile(path).iter_batches(1024)
                return (row for batch in batches for row in batch.to_pylist())
            lines = gzip.open(path) if path.endswith(".gz") else open(path, "rb")
            return (parse_line(path, n, line) for n, line in enumerate(lines, 1) if line.strip())
        return map(_plain, self._tfds(split)[1].as_numpy_iterator())

    def _tfds(self, split: str) -> tuple[Any, Any]:
        import tensorflow_datasets as tfds  # Here: it takes its time.

        for folder in (self._root or None, None):
            try:
                builder = tfds.builder(self._dataset, data_dir=folder)
                return builder, builder.as_dataset(split=self._names[split], shuffle_files=False)
            except (AssertionError, ValueError, tfds.core.DatasetNotFoundError):
                continue  # Not prepared there, no such split, or no such dataset.
        file = f"{self._dataset.partition(':')[0]}/{self._names[split]}"
        raise UserError(
            f"{file} is not on this machine; put its rows into {self._root or '<data.root>'}/{file}"
            f".jsonl (.jsonl.gz, .parquet), or prepare it: tfds.load({self._dataset!r})"
        )

    def render(self, item: Row, split: str, index: int, seed: int) -> dict[str, str]:
        try:
            return self._render(item, Draws(seed, self._dataset, split, index), split)
        except (KeyError, IndexError) as error:
            where = f"{self._dataset}: {split} row {index}"
            raise UserError(f"{where}: no {error}; the row has: {', '.join(item)}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    value = value.to_list() if hasattr(value, "to_list") else value  # Of a ragged tensor.
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.decode("utf-8") if isinstance(value, bytes) else value
