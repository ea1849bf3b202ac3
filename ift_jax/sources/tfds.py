"""Rows of a TensorFlow Datasets data set, or of local files that hold the same rows, as records."""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ift_jax.data.randomness import Draws
from ift_jax.errors import UserError
from ift_jax.sources.base import PythonDataSource
from ift_jax.sources.dataset_rows import DatasetRows, PlacedRow

Row = dict[str, Any]


class TfdsRows(DatasetRows):
    """The rows of a data set that TFDS has prepared.

    It is looked for in `<root>/tensorflow_datasets`, in the root and in TFDS's default folder.
    """

    def fetch(self, split: str, start: int, stop: int | None) -> Iterator[PlacedRow]:
        builder, rows = self._open(split)
        rows = rows.skip(start)
        if stop is not None:
            rows = rows.take(stop - start)
        where = f"{builder.info.full_name}:{split}"
        numbered = enumerate(rows.as_numpy_iterator(), start)
        return (PlacedRow(f"{where}:{number}", plain(row)) for number, row in numbered)

    def fetch_count(self, split: str) -> int:
        return int(self._open(split).builder.info.splits[split].num_examples)

    def fetch_version(self, split: str) -> str:
        """Return the full name with its version, under which TFDS's data never change."""
        return str(self._open(split).builder.info.full_name)

    def _open(self, split: str) -> "_Prepared":
        """Find the data set where TFDS has prepared it.

        Raises:
            UserError: It is nowhere, or has no such split.
        """
        import tensorflow_datasets as tfds  # Imported here because it takes seconds.

        in_order = tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1)
        own_folder = self.root and os.path.join(self.root, "tensorflow_datasets")
        for folder in (own_folder, self.root, None):
            if folder is not None and not os.path.isdir(folder):
                continue
            try:
                builder = tfds.builder(self.name, data_dir=folder, try_gcs=False)
                splits = builder.info.splits
                if splits and split not in splits:
                    where = builder.info.full_name
                    raise UserError(f"{where}: no split {split!r}; it has {', '.join(splits)}")
                rows = builder.as_dataset(split=split, shuffle_files=False, read_config=in_order)
                return _Prepared(builder, rows)
            except (AssertionError, ValueError, OSError, tfds.core.DatasetNotFoundError):
                continue  # Not prepared there, or no such data set.
        raise self.missing(split, f"prepare it: tfds.load({self.name!r})")


class _Prepared(NamedTuple):
    builder: Any  # tfds.core.DatasetBuilder
    rows: Any  # tf.data.Dataset, in order.


class TfdsRowsSource(PythonDataSource):
    """Records made of the rows of a data set that TFDS knows, or of a local copy.

    Args:
        dataset: TFDS's name, such as "glue/mnli" or "squad/v1.1:3.0.0".
        render: (row, draws, split) -> record. A row is a dict of plain Python values.
        splits: Our name of a split -> TFDS's name.
        root: The folder of local copies and perhaps of TFDS's data; "" for TFDS's own folder.
        fields: The keys of every record.
        expand: (row, split) -> the rows that it becomes; none drops it.
        caps: Split -> the largest number of records, which are the first ones.
    """

    def __init__(
        self,
        dataset: str,
        render: Callable[[Row, Draws, str], dict[str, str]],
        splits: Mapping[str, str],
        root: str = "",
        fields: tuple[str, ...] = ("inputs", "targets"),
        expand: Callable[[Row, str], Iterable[Row]] | None = None,
        caps: Mapping[str, int] | None = None,
    ) -> None:
        self._dataset = dataset
        self._rows = TfdsRows(os.path.abspath(root) if root else "", dataset)
        self._render = render
        self._published = dict(splits)
        self._fields = fields
        self._expand = expand
        self._caps = dict(caps or {})
        super().__init__(splits)

    @property
    def fields(self) -> tuple[str, ...]:
        return self._fields

    def files(self, split: str) -> list[str]:
        return self._rows.files(self._published[split])

    @property
    def datasets(self) -> frozenset[str]:
        return frozenset({self._rows.dataset})

    def options(self, split: str) -> Any:
        bound = getattr(self._render, "keywords", {})  # The arguments of a functools.partial.
        arguments = sorted(map(repr, bound.items()))
        return [self._dataset, self._published[split], self._caps.get(split), arguments]

    def fingerprint(self, split: str) -> str:
        return super().fingerprint(split) + self._rows.version(self._published[split])

    def items(self, split: str) -> Iterator[Row]:
        rows = (row.fields for row in self._rows.read(self._published[split]))
        if self._expand is not None:
            expand = self._expand
            rows = (new for row in rows for new in expand(row, split))
        return itertools.islice(rows, self._caps.get(split))

    def render(self, item: Row, split: str, index: int, seed: int) -> dict[str, str]:
        try:
            return self._render(item, Draws(seed, self._dataset, split, index), split)
        except (KeyError, IndexError) as error:
            where = f"{self._dataset}: {split} row {index}"
            raise UserError(f"{where}: no {error}; the row has: {', '.join(item)}") from None


def plain(value: Any) -> Any:
    """Return NumPy values, bytes and ragged arrays as what JSON has."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if hasattr(value, "to_list"):  # A ragged tensor.
        value = value.to_list()
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
