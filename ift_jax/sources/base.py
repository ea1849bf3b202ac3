"""A SeqIO data source whose records are made by Python code."""

import abc
import glob
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf

from ift_jax.errors import UserError
from ift_jax.io.files import file_digest, json_digest
from ift_jax.text.records import Record
from ift_jax.text.rows.parse_record import parse_record

_BATCH = 512  # Records handed to tf.data at a time; one call a record costs ten times more.


class PythonDataSource(seqio.DataSource):
    """Base of our sources. A record is a dict of strings with the same keys for all records.

    A subclass gives cheap, ordered `items` (a line, a row, an index) and turns one into a record
    with `render`, a pure function. A shard therefore skips the items of the others without parsing
    them, and another `seed` (SeqIO's) gives another variant (phrasing, reference) of the same
    examples.

    Args:
        splits: Names of the splits.

    Attributes:
        failure: The error of a record that was read through tf.data, which reports it as an error
            of its own kind.
    """

    def __init__(self, splits: Iterable[str]) -> None:
        super().__init__(splits=splits, caching_permitted=True)
        self._counts: dict[str, int] = {}
        self.failure: UserError | None = None

    # What a subclass gives.

    @property
    @abc.abstractmethod
    def fields(self) -> tuple[str, ...]:
        """The keys of every record."""

    @abc.abstractmethod
    def items(self, split: str) -> Iterable[Any]:
        """Return what `render` needs of each example of the split, in a stable order."""

    @abc.abstractmethod
    def render(self, item: Any, split: str, index: int, seed: int) -> dict[str, str]:
        """Return the record of the split's `index`-th item.

        Raises:
            UserError: The item cannot become a record; names file, line and field.
        """

    @abc.abstractmethod
    def files(self, split: str) -> list[str]:
        """Return the absolute paths of all files that determine the split's records."""

    def options(self, split: str) -> Any:
        """Return what besides the files determines the records, as a JSON value."""
        return None

    @property
    def identity(self) -> Any:
        """What tells this source from others of its class, for registering a task twice.

        A subclass whose files are looked up in the file system should override it, so that
        registering does not need the data.
        """
        splits = sorted(self.splits)
        return [(split, self.files(split), self.options(split)) for split in splits]

    @property
    def datasets(self) -> frozenset[str]:
        """Names of the data that the records are made of, shared by all sources of that data."""
        return frozenset()

    @property
    def holds_out(self) -> frozenset[str]:
        """The `datasets` that must not be trained on where this source is held out."""
        return self.datasets

    # What a subclass may give, if its records have fields that only some of them need.

    def dataset_fields(self, split: str) -> tuple[str, ...]:
        """Return the keys of the examples of a split as SeqIO reads them."""
        return self.fields

    def text_of(self, record: Mapping[str, str], field: str) -> str:
        """Return what a record has in one of the `dataset_fields`."""
        return record[field]

    # What preparation reads.

    def fingerprint(self, split: str) -> str:
        """Return a hex hash of everything that determines the split's records."""
        self.check_split(split)
        parts = [type(self).__name__, self.options(split), list(self.fields)]
        return json_digest(parts + [self.file_fingerprint(path) for path in self.files(split)])

    def file_fingerprint(self, path: str) -> str:
        """Return the hash of a file's content."""
        return file_digest(path)

    def numbered_records(
        self, split: str, *, seed: int = 0, shard_index: int = 0, num_shards: int = 1
    ) -> Iterator[tuple[int, dict[str, str]]]:
        """Yield the records of a shard, each with the index of its item in the split."""
        for index, item in self.items_of_shard(split, shard_index, num_shards):
            yield index, self.render(item, split, index, seed)

    def records(
        self, split: str, *, seed: int = 0, shard_index: int = 0, num_shards: int = 1
    ) -> Iterator[dict[str, str]]:
        """Yield the records of a shard: those whose index is `shard_index` modulo `num_shards`."""
        numbered = self.numbered_records(
            split, seed=seed, shard_index=shard_index, num_shards=num_shards
        )
        return (record for _, record in numbered)

    def items_of_shard(self, split: str, shard: int, shards: int) -> Iterator[tuple[int, Any]]:
        """Yield the items whose index is `shard` modulo `shards`, each with its index."""
        self.check_split(split)
        yield from itertools.islice(enumerate(self.items(split)), shard, None, shards)

    def parsed(
        self, split: str, name: str, *, seed: int = 0, shard_index: int = 0, num_shards: int = 1
    ) -> Iterator[Record]:
        """Yield the records of a shard as checked records, each with the place "name:split:index".

        Raises:
            UserError: A record does not hold what its fields promise.
        """
        records = self.records(split, seed=seed, shard_index=shard_index, num_shards=num_shards)
        for position, fields in enumerate(records):
            index = shard_index + position * num_shards
            yield parse_record(fields, f"{name}:{split}:{index}")

    def check_split(self, split: str) -> None:
        """Raise a UserError if the source has no such split."""
        if split not in self.splits:
            raise UserError(f"no split {split!r}; this source has: {', '.join(self.splits)}")

    # What SeqIO reads.

    def num_input_examples(self, split: str) -> int:
        self.check_split(split)
        if split not in self._counts:
            self._counts[split] = sum(1 for _ in self.items(split))
        return self._counts[split]

    @property
    def supports_arbitrary_sharding(self) -> bool:
        return True

    def list_shards(self, split: str) -> Sequence[str]:
        return [split]

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        *,
        sequence_length: Any = None,
        use_cached: bool = False,
        num_epochs: int | None = 1,
    ) -> tf.data.Dataset:
        """Return the records as scalar string tensors, in order: SeqIO's Task shuffles itself."""
        self.check_split(split)
        shard = shard_info or seqio.ShardInfo(0, 1)
        fields = self.dataset_fields(split)
        signature = {field: tf.TensorSpec([None], tf.string) for field in fields}

        def batches() -> Iterator[dict[str, list[str]]]:
            records = self.records(
                split, seed=int(seed or 0), shard_index=shard.index, num_shards=shard.num_shards
            )
            try:
                while batch := list(itertools.islice(records, _BATCH)):
                    yield {
                        field: [self.text_of(record, field) for record in batch]
                        for field in signature
                    }
            except UserError as error:
                self.failure = error
                raise

        return tf.data.Dataset.from_generator(batches, output_signature=signature).unbatch()


def existing_file(path: str | os.PathLike[str]) -> str:
    """Return the absolute path of a readable file.

    Raises:
        UserError: There is no file, it is a folder, or it cannot be read.
    """
    path = os.path.abspath(os.path.expanduser(path))
    if os.path.isfile(path) and os.access(path, os.R_OK):
        return path
    if os.path.isdir(path):
        found = "is a folder"
    elif os.path.exists(path):
        found = "cannot be read (permissions)"
    else:
        found = "does not exist"
    raise UserError(f"{path}: {found}; expected a file")


def expand_paths(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[str]:
    """Return the absolute paths of files and glob patterns, each pattern's matches sorted.

    Raises:
        UserError: A pattern matches nothing, or a path is not a readable file.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else paths
    result: list[str] = []
    for path in map(os.path.expanduser, given):
        is_pattern = glob.has_magic(path) and not os.path.exists(path)
        matches = sorted(glob.glob(path)) if is_pattern else [path]
        if not matches:
            raise UserError(f"{path}: no file matches this pattern")
        result += map(existing_file, matches)
    return result
