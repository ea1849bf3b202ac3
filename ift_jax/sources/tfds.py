"""Rows of a TensorFlow Datasets dataset, or of local files that hold the same rows, as records."""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ift_jax.data.randomness import Draws
from ift_jax.errors import UserError
from ift_jax.sources.base import PythonDataSource
from ift_jax.sources.local_copies import local_file, local_rows

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
        path = local_file(self._root, self._dataset.partition(":")[0], self._names[split])
        return [path] if path else []

    @property
    def datasets(self) -> frozenset[str]:
        return frozenset({self._dataset.partition(":")[0]})

    def options(self, split: str) -> Any:
        cap, bound = self._caps.get(split), getattr(self._render, "keywords", {})
        return [self._dataset, self._names[split], cap, sorted(map(repr, bound.items()))]

    def fingerprint(self, split: str) -> str:  # TFDS's data never change under one version.
        return super().fingerprint(split) + ("" if self.files(split) else self._tfds(split)[0])

    def items(self, split: str) -> Iterator[Row]:
        rows = (new for row in self._rows(split) for new in self._expand(row, split))
        return itertools.islice(rows, self._caps.get(split))

    def _rows(self, split: str) -> Iterator[Row]:
        for path in self.files(split):
            return (row for _, row in local_rows(path))
        return self._tfds(split)[1]

    def _tfds(self, split: str) -> tuple[str, Iterator[Row]]:
        file = f"{self._dataset.partition(':')[0]}/{self._names[split]}"
        builder, rows = open_tfds(
            self._dataset,
            self._root,
            self._names[split],
            f"{file} is not on this machine; put its rows into {self._root or '<data.root>'}/{file}"
            f".jsonl (.jsonl.gz, .parquet), or prepare it: tfds.load({self._dataset!r})",
        )
        return builder.info.full_name, map(plain, rows.as_numpy_iterator())

    def render(self, item: Row, split: str, index: int, seed: int) -> dict[str, str]:
        try:
            return self._render(item, Draws(seed, self._dataset, split, index), split)
        except (KeyError, IndexError) as error:
            where = f"{self._dataset}: {split} row {index}"
            raise UserError(f"{where}: no {error}; the row has: {', '.join(item)}") from None


def open_tfds(dataset: str, root: str, split: str, missing: str) -> tuple[Any, Any]:
    """A builder that TFDS has prepared, and the `tf.data.Dataset` of a split, rows in order.

    It is looked for in `<root>/tensorflow_datasets`, in the root, and in TFDS's default folder.

    Raises:
      UserError: no such split, or (with the text `missing`) it is in none of them.
    """
    import tensorflow_datasets as tfds  # Here: it takes its time.

    config = tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1)
    for folder in (root and os.path.join(root, "tensorflow_datasets"), root, None):
        try:
            if folder is not None and not os.path.isdir(folder):
                continue
            builder = tfds.builder(dataset, data_dir=folder, try_gcs=False)
            if (splits := builder.info.splits) and split not in splits:
                where = builder.info.full_name
                raise UserError(f"{where}: no split {split!r}; it has {', '.join(splits)}")
            return builder, builder.as_dataset(split=split, shuffle_files=False, read_config=config)
        except (AssertionError, ValueError, OSError, tfds.core.DatasetNotFoundError):
            continue  # Not prepared there, or no such dataset.
    raise UserError(missing)


def plain(value: Any) -> Any:
    """NumPy values, bytes and ragged arrays -> what JSON has."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    value = value.to_list() if hasattr(value, "to_list") else value  # Of a ragged tensor.
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
