"""Rows of the data sets of FLAN: from local files or TensorFlow Datasets (TFDS)."""

import dataclasses
import os
from collections.abc import Iterator

from ift_jax.errors import UserError
from ift_jax.sources.dataset_rows import PlacedRow
from ift_jax.sources.tfds import TfdsRows


@dataclasses.dataclass(frozen=True)
class Part:
    """The rows `start:stop` of a published split, with Python's rules for slices.

    Attributes:
        split: The published split.
        start: The first row. A negative number counts from the end.
        stop: The row after the last one, None for all. A negative number counts from the end.
        tfds: The TFDS name of another data set that this part is taken from; "" for the data set's
            own. (The test sets of GLUE's MNLI are a data set each.)
        reserved: The number of rows at the end of the split that belong to other parts, even where
            the split is shorter than `stop`.
    """

    split: str
    start: int = 0
    stop: int | None = None
    tfds: str = ""
    reserved: int = 0


class FlanRows(TfdsRows):
    """Rows of a data set as dicts.

    They are read from `<root>/<dataset>/[<config>/]<split>.jsonl`, `.jsonl.gz` or `.parquet` if
    that folder exists, and otherwise from TFDS, in `<root>/tensorflow_datasets` or in the default
    folder of TFDS.
    """

    @property
    def _folder(self) -> str:
        """The folder of local copies; "" without a root."""
        return os.path.join(self.root, *self.dataset.split("/")) if self.root else ""

    def path(self, split: str) -> str:
        """Return the local file of a split, "" if there is no folder of the data set.

        Raises:
            UserError: The folder exists but has no file of this split.
        """
        path = super().path(split)
        if not path and self._folder and os.path.isdir(self._folder):
            raise UserError(
                f"{self.name}: {self._folder} holds no {split}.jsonl, .jsonl.gz or .parquet"
            )
        return path

    def read_part(self, part: Part) -> Iterator[PlacedRow]:
        """Yield the rows of a part, each with its place."""
        start = part.start
        stop = part.stop
        counts_from_end = start < 0 or (stop is not None and stop < 0) or part.reserved
        if counts_from_end:
            rows = self.count(part.split)
            start, stop, _ = slice(start, stop).indices(rows)
            stop = max(min(stop, rows - part.reserved), start)
        return self.read(part.split, start, stop)

    @property
    def available(self) -> bool:
        """Whether a folder of the data exists. No file is opened."""
        if self._folder and os.path.isdir(self._folder):
            return True
        tfds_folders = [os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")]
        if self.root:
            tfds_folders.append(os.path.join(self.root, "tensorflow_datasets"))
        name_parts = self.name.split("/")
        return any(
            os.path.isdir(os.path.join(os.path.expanduser(folder), *name_parts))
            for folder in tfds_folders
        )
