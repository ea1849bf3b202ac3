"""A SeqIO data source whose records are made by Python code."""

import abc
import glob
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import seqio
import tensorflow as tf

from ift_jax.data.randomness import digest
from ift_jax.errors import UserError
from ift_jax.io.files import file_digest as file_hash
from ift_jax.text.records import Record, parse_record

_BATCH = 512  # Records handed to tf.data at a time: one call a record costs ten times more.


class PythonDataSource(seqio.DataSource):
    """Base of our sources. A record is a dict of strings, the same keys for all.

    A subclass gives cheap, ordered `items` (a line, a row, an index) and turns one into a record
    with `render`, a pure function: a shard skips the others' items without parsing them, and
    another `seed` (SeqIO's) gives another rendering (phrasing, reference) of the same examples.
    """

    def __init__(self, splits: Iterable[str]) -> None:
        super().__init__(splits=splits, caching_permitted=True)
        self._counts: dict[str, int] = {}
        self.failure: UserError | None = None

    @property
    @abc.abstractmethod
    def fields(self) -> tuple[str, ...]:
        """The keys of every record."""

    @abc.abstractmethod
    def items(self, split: str) -> Iterable[Any]:
        """What `render` needs of each example of the split, in a stable order."""

    @abc.abstractmethod
    def render(self, item: Any, split: str, index: int, seed: int) -> dict[str, str]:
        """The record of the split's `index`-th item; a UserError names file, line and field."""

    @abc.abstractmethod
    def files(self, split: str) -> list[str]:
        """The absolute paths of all files that determine the split's records."""

    @property
    def datasets(self) -> frozenset[str]:
        """Names of the data that the records are made of, shared by all sources of that data."""
        return frozenset()

    @property
    def holds_out(self) -> frozenset[str]:
        """The `datasets` that must not be trained on where this is held out."""
        return self.datasets

    def options(self, split: str) -> Any:
        """What besides the files determines the records, as a JSON value."""
        return None

    def fingerprint(self, split: str) -> str:
        """A hex hash of everything that determines the split's records."""
        self.check_split(split)
        parts = [type(self).__name__, self.options(split), list(self.fields)]
        return digest(parts + [file_hash(path) for path in self.files(split)])

    def records(
        self, split: str, *, seed: int = 0, shard_index: int = 0, num_shards: int = 1
    ) -> Iterator[dict[str, str]]:
        """The records of a shard: those whose index is shard_index modulo num_shards."""
        for index, item in self.items_of_shard(split, shard_index, num_shards):
            yield self.render(item, split, index, seed)

    def items_of_shard(self, split: str, shard: int, shards: int) -> Iterator[tuple[int, Any]]:
        """The items whose index is `shard` modulo `shards`, each behind its index."""
        self.check_split(split)
        yield from itertools.islice(enumerate(self.items(split)), shard, None, shards)

    def parsed(
        self, split: str, name: str, *, seed: int = 0, shard_index: int = 0, num_shards: int = 1
    ) -> Iterator[Record]:
        """`records`, checked: each with the place "name:split:index"."""
        place = {"shard_index": shard_index, "num_shards": num_shards}
        for position, fields in enumerate(self.records(split, seed=seed, **place)):
            index = shard_index + position * num_shards
            yield parse_record(fields, f"{name}:{split}:{index}")

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

    def check_split(self, split: str) -> None:
        """Raises a UserError if the source has no such split."""
        if split not in self.splits:
            raise UserError(f"no split {split!r}; this source has: {', '.join(self.splits)}")

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
        """The records as scalar string tensors, in order: SeqIO's Task shuffles by itself."""
        self.check_split(split)
        shard = shard_info or seqio.ShardInfo(0, 1)
        place = {"shard_index": shard.index, "num_shards": shard.num_shards}
        signature = {field: tf.TensorSpec([None], tf.string) for field in self.fields}

        def batches() -> Iterator[dict[str, list[str]]]:
            records = self.records(split, seed=int(seed or 0), **place)
            try:
                while batch := list(itertools.islice(records, _BATCH)):
                    yield {field: [record[field] for record in batch] for field in signature}
            except UserError as error:
                self.failure = error  # tf.data raises an error of its own kind.
                raise

        return tf.data.Dataset.from_generator(batches, output_signature=signature).unbatch()


def existing_file(path: str | os.PathLike[str]) -> str:
    """The absolute path; a UserError unless it is a readable file."""
    path = os.path.abspath(os.path.expanduser(path))
    if os.path.isfile(path) and os.access(path, os.R_OK):
        return path
    found = "cannot be read (permissions)" if os.path.exists(path) else "does not exist"
    raise UserError(f"{path}: {'is a folder' if os.path.isdir(path) else found}; expected a file")


def expand_paths(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[str]:
    """The absolute paths of files and glob patterns, each pattern's matches sorted."""
    result: list[str] = []
    for path in [paths] if isinstance(paths, str | os.PathLike) else paths:
        path = os.path.expanduser(path)
        is_pattern = glob.has_magic(path) and not os.path.exists(path)
        if not (matches := sorted(glob.glob(path)) if is_pattern else [path]):
            raise UserError(f"{path}: no file matches this pattern")
        result += map(existing_file, matches)
    return result
