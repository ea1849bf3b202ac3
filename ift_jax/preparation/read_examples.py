"""The examples of one shard of a task, as SeqIO gives them or straight from their source."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

from ift_jax.errors import UserError, mistake_of, of_users_code
from ift_jax.preparation.shards import Part
from ift_jax.sources.base import PythonDataSource
from ift_jax.sources.task_examples import direct_source, with_optional_seed
from ift_jax.text.records import Record
from ift_jax.text.rows import canonical, switches
from ift_jax.text.rows.parse_record import parse_record

_BATCH = 256  # Examples that leave tf.data at a time.
_TEXT_FIELDS = ("inputs", "targets", "messages", "tools", "references", "choices")
_ID_FIELDS = ("inputs", "targets", "targets_loss_weights")
# Features that a row of a file may have, and that are not read of a task's own pipeline. Others,
# such as an index, are for its metrics.
_MEANINGFUL = frozenset(
    (*canonical.OPTIONAL_CHAT_FIELDS, *canonical.OPTIONAL_PAIR_FIELDS, *switches.SWITCHES)
    + ("system_prompt", "system_message", "functions", "enable_thinking")
)


def is_text_task(task: seqio.Task) -> bool:
    """Return whether the task hands on strings, which the run's tokenizer then encodes."""
    return all(feature.dtype == tf.string for feature in task.output_features.values())


@dataclasses.dataclass(frozen=True)
class Reading:
    """What is read of a task in one pass, and how.

    Attributes:
        task: The task.
        split: The split.
        shard: Which shard of it, below `shards`.
        shards: The number of shards.
        seed: SeqIO's seed. One seed for all shards: a source may shuffle with it.
        sequence_length: What preprocessors are told; see `preparation.sequence_length`.
    """

    task: seqio.Task
    split: str
    shard: int
    shards: int
    seed: int
    sequence_length: Mapping[str, int] | None = None

    @classmethod
    def of_part(
        cls,
        part: Part,
        task: seqio.Task,
        run_seed: int,
        sequence_length: Mapping[str, int] | None,
    ) -> "Reading":
        """Return the reading that makes a part in a run of `run_seed`."""
        seed = part.drawn_seed(run_seed)
        return cls(task, part.split, part.shard, part.shards, seed, sequence_length)

    @property
    def what(self) -> str:
        """What is read, for an error of its source or of one of its preprocessors."""
        source = type(self.task.source).__name__
        return f"task {self.task.name!r}, split {self.split!r}, source {source}"


def text_records(reading: Reading) -> Iterator[Record]:
    """Yield the records of a shard of a text task in order, each placed at "task:split:index".

    Raises:
        UserError: The source cannot read a record, or a record is not what its fields promise.
    """
    task, split, shard, shards = reading.task, reading.split, reading.shard, reading.shards
    source = direct_source(task)
    if source is not None:
        with of_users_code(reading.what):
            yield from source.parsed(
                split, task.name, seed=reading.seed, shard_index=shard, num_shards=shards
            )
        return
    unread = set[str]()
    for position, fields in enumerate(examples(reading, unread=unread)):
        record = parse_record(fields, f"{task.name}:{split}:{shard + position * shards}")
        yield dataclasses.replace(record, unread=(*record.unread, *sorted(unread)))


def examples(
    reading: Reading, *, limit: int = -1, unread: set[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the preprocessed examples of a shard in order: strings, or int32 / float32 arrays.

    Args:
        reading: What is read.
        limit: At most this many examples; -1 for all.
        unread: Gets the names of features that would mean something in a row of a file.

    Raises:
        UserError: The source cannot read a record, or the source or a preprocessor raises an
            exception.
    """
    task = reading.task
    fields = _text_fields(reading) if is_text_task(task) else _ID_FIELDS
    try:
        dataset = _dataset(reading).take(limit)
        kept = [name for name in fields if name in dataset.element_spec]
        if unread is not None:
            unread |= _MEANINGFUL & dataset.element_spec.keys() - set(kept)
        if len(kept) < len(dataset.element_spec):
            dataset = dataset.map(_only(kept))
        # Ragged batches: one step of tf.data for many examples, whatever their lengths.
        for batch in dataset.ragged_batch(_BATCH).prefetch(2).as_numpy_iterator():
            columns = [_column(batch[name]) for name in kept]
            for values in zip(*columns, strict=True):
                yield dict(zip(kept, values, strict=True))
        return
    except Exception as error:
        failure = getattr(task.source, "failure", None)
        if isinstance(error, tf.errors.OpError) and failure is not None:
            task.source.failure = None
            mistake = UserError(str(failure))
        else:
            mistake = mistake_of(reading.what, error)
    # A new error, raised here: the traceback of the old one holds tf.data's iterator, and taking
    # that down with the interpreter would hang.
    raise mistake


def _text_fields(reading: Reading) -> tuple[str, ...]:
    """Return the fields that are read of a text task's examples."""
    source = reading.task.source
    is_ours = isinstance(source, PythonDataSource)
    own = source.dataset_fields(reading.split) if is_ours else ()
    return tuple(dict.fromkeys((*_TEXT_FIELDS, *own)))


def whole_examples(reading: Reading) -> Iterator[dict[str, Any]]:
    """Yield the preprocessed examples of a shard in order, with all that they hold.

    They are what `seqio.Evaluator` gives to postprocessors and metric objects: arrays, and texts as
    UTF-8 bytes.
    """
    yield from tfds.as_numpy(_dataset(reading))


def _dataset(reading: Reading) -> tf.data.Dataset:
    shard_info = seqio.ShardInfo(reading.shard, reading.shards)
    return with_optional_seed(reading.task).get_dataset(
        reading.sequence_length,
        reading.split,
        shuffle=False,
        seed=reading.seed,
        num_epochs=1,
        try_in_mem_cache=False,
        trim_output_features=False,  # What is too long is for `data.over_length` to decide.
        shard_info=shard_info if reading.shards > 1 else None,
    )


def _only(names: Sequence[str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return a function that keeps these fields of an example, as plain Python for tf.data."""

    def keep(example: dict[str, Any]) -> dict[str, Any]:
        return {name: example[name] for name in names}

    return tf.autograph.experimental.do_not_convert(keep)


def _column(values: Any) -> list[Any]:
    """Return a batch of one field as a list with one value per example."""
    if hasattr(values, "row_splits"):
        return np.split(values.values, values.row_splits[1:-1])
    if values.dtype == object:
        return [text.decode() if isinstance(text, bytes) else text for text in values.tolist()]
    return list(values)
