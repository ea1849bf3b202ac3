"""The examples of a SeqIO task, read directly from its source or through its tf.data pipeline."""

from collections.abc import Iterator, Sequence
from typing import Any

import seqio
import tensorflow as tf

from ift_jax.sources.base import PythonDataSource


class SeedOptionalSource(seqio.DataSource):
    """A source that may be given a seed although the function behind it takes none.

    SeqIO seeds all of a task or nothing of it: `Task.get_dataset(seed=...)` hands the seed to the
    source as well as to the preprocessors, and a `FunctionDataSource` whose function has no such
    argument raises a ValueError. This wrapper then asks again without the seed.

    Args:
        source: The source to wrap.
    """

    def __init__(self, source: seqio.DataSource) -> None:
        self._source = source
        super().__init__(splits=source.splits, caching_permitted=source.caching_permitted)

    @property
    def supports_arbitrary_sharding(self) -> bool:
        return bool(self._source.supports_arbitrary_sharding)

    def num_input_examples(self, split: str) -> int | None:
        return self._source.num_input_examples(split)

    def list_shards(self, split: str) -> Sequence[str]:
        return self._source.list_shards(split)

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        **options: Any,
    ) -> tf.data.Dataset:
        try:
            return self._source.get_dataset(split, shuffle, seed, shard_info, **options)
        except ValueError:
            return self._source.get_dataset(split, shuffle, None, shard_info, **options)


def with_optional_seed(task: seqio.Task) -> seqio.Task:
    """Return the task with a source that may be given a seed; see `SeedOptionalSource`."""
    if not isinstance(task.source, seqio.FunctionDataSource):
        return task
    return task.replace(source=SeedOptionalSource(task.source))


def direct_source(task: seqio.Task) -> PythonDataSource | None:
    """Return the task's source if its records are the task's examples, else None.

    Reading such a source without tf.data gives the same examples and takes a fraction of the time.
    """
    source = task.source
    if not isinstance(source, PythonDataSource) or task.preprocessors:
        return None
    return source if set(task.output_features) <= set(source.fields) else None


def text_examples(task: seqio.Task, split: str, seed: int = 0) -> Iterator[dict[str, str]]:
    """Yield the text fields of a task's examples, in order and without SeqIO's shuffling."""
    source = direct_source(task)
    if source is not None:
        yield from source.records(split, seed=seed)
        return
    dataset = with_optional_seed(task).get_dataset(
        None, split=split, shuffle=False, num_epochs=1, seed=seed, try_in_mem_cache=False
    )
    for example in dataset.as_numpy_iterator():
        yield {name: value.decode() for name, value in example.items() if isinstance(value, bytes)}
