"""The unit of preparing: one shard of a split, in one rendering, becomes one part of a store."""

import contextlib
import dataclasses
import functools
import inspect
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ift_jax.config.schema import Config
from ift_jax.data.randomness import stable_hash
from ift_jax.data.store import part_path
from ift_jax.errors import UserError
from ift_jax.preparation.store_writer import PartBuilder
from ift_jax.preparation.tokenized_tasks import encode_tokenised
from ift_jax.text.examples import Dropped, ExampleFormatter
from ift_jax.text.records import Record, parse_record
from ift_jax.text.tokenizers.load import SentencePieceTokenizer, Tokenizer

if TYPE_CHECKING:
    import seqio
    import tensorflow as tf

EXAMPLES_PER_SHARD = 20_000
_MAX_SHARDS = 256
_BATCH = 256  # Examples that leave tf.data at a time.
_TOGETHER = 32  # Records that go from step to step together: few enough for a core's cache.
_TEXT_FIELDS = ("inputs", "targets", "messages", "tools", "references", "choices")
_ID_FIELDS = ("inputs", "targets", "targets_loss_weights")


@dataclasses.dataclass(frozen=True)
class Unit:
    """One part to be made: shard `shard` of `shards`, rendering `variant`."""

    task: str
    split: str
    shard: int
    shards: int
    variant: int
    examples: int  # A guess, for deciding whether processes pay.
    folder: Path

    @property
    def path(self) -> Path:
        """The part's file; where its report stands beside it, it is made."""
        return part_path(self.folder, self.variant * self.shards + self.shard)


def units_of(task: "seqio.Task", split: str, variants: int, folder: Path) -> list[Unit]:
    """The parts of a store, in their order: fixed by the task alone, never by processes."""
    count = task.num_input_examples(split) or EXAMPLES_PER_SHARD
    n = min(max(-(-count // EXAMPLES_PER_SHARD), 1), _MAX_SHARDS)
    places = itertools.product(range(variants), range(n))
    return [Unit(task.name, split, k, n, variant, count // n, folder) for variant, k in places]


def is_text_task(task: "seqio.Task") -> bool:
    """Whether the task hands on strings (then the run's tokenizer encodes them)."""
    import tensorflow as tf

    return all(feature.dtype == tf.string for feature in task.output_features.values())


def check_vocabulary(task: "seqio.Task", tokenizer: Tokenizer) -> None:
    """Refuses a task that tokenised itself with another vocabulary than the run's: a UserError."""
    import seqio
    import tensorflow as tf

    for name in sorted({"inputs", "targets"} & set(task.output_features)):
        vocabulary = task.output_features[name].vocabulary
        which = type(vocabulary).__name__
        if isinstance(vocabulary, seqio.SentencePieceVocabulary):
            file = vocabulary.sentencepiece_model_file
            with tf.io.gfile.GFile(file, "rb") as model:
                theirs = SentencePieceTokenizer(model.read(), extra_ids=vocabulary.extra_ids)
            if isinstance(tokenizer, SentencePieceTokenizer) and _ids(theirs) == _ids(tokenizer):
                continue  # Tokens that the run adds come after theirs.
            which = f"{file} with {vocabulary.extra_ids} extra ids"
        raise UserError(
            f"task {task.name!r}: its feature {name!r} is tokenised already, with {which}; "
            "expected the run's own tokenizer (set tokenizer.path and tokenizer.extra_ids to "
            "that vocabulary, or let the task hand on strings)"
        )


def _ids(tokenizer: SentencePieceTokenizer) -> tuple[bytes, int]:
    return tokenizer.files["tokenizer.model"], tokenizer.extra_ids


def records(
    task: "seqio.Task", split: str, shard: int, shards: int, seed: int
) -> Iterator[dict[str, Any]]:
    """The preprocessed examples of a shard, in order: strings, or int32 / float32 arrays.

    A UserError, if the source refuses a record.
    """
    import seqio
    import tensorflow as tf

    fields = _TEXT_FIELDS if is_text_task(task) else _ID_FIELDS
    try:
        dataset = _seedable(task).get_dataset(
            None,  # Nothing is trimmed behind our back: see `over_length`.
            split,
            shuffle=False,
            seed=seed,
            num_epochs=1,
            try_in_mem_cache=False,
            trim_output_features=False,  # Nor a graph built for it.
            shard_info=seqio.ShardInfo(shard, shards) if shards > 1 else None,
        )
        kept = [name for name in fields if name in dataset.element_spec]
        if len(kept) < len(dataset.element_spec):
            dataset = dataset.map(_only(kept))
        # Ragged batches: one step of tf.data for many examples, whatever their lengths.
        batches = dataset.ragged_batch(_BATCH)
        for batch in batches.prefetch(2).as_numpy_iterator():
            columns = [_column(batch[name]) for name in kept]
            for values in zip(*columns, strict=True):
                yield dict(zip(kept, values, strict=True))
        return
    except tf.errors.OpError as error:
        if getattr(task.source, "failure", None) is None:
            error.add_note(f"while preparing task {task.name!r}, split {split!r}")
            raise
        message = str(task.source.failure)
        task.source.failure = None
    # A new one, raised here: the old one's traceback holds tf.data's iterator, and taking that
    # down with the interpreter would hang.
    raise UserError(message)


def _only(names: Sequence[str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A function of an example that keeps these fields, not to be translated into a graph."""
    import tensorflow as tf

    return tf.autograph.experimental.do_not_convert(lambda example: {k: example[k] for k in names})


def text_records(
    task: "seqio.Task", split: str, shard: int, shards: int, seed: int
) -> Iterator[Record]:
    """The records of a shard of a text task, in order, each with the place "task:split:index".

    A UserError, if the source or the check of a record refuses one.
    """
    from ift_jax.sources.base import PythonDataSource

    source = task.source
    # What a source of ours makes and no preprocessor changes is the same without tf.data.
    if (
        isinstance(source, PythonDataSource)
        and not task.preprocessors
        and set(task.output_features) <= set(source.fields)
    ):
        yield from source.parsed(split, task.name, seed=seed, shard_index=shard, num_shards=shards)
        return
    for position, fields in enumerate(records(task, split, shard, shards, seed)):
        yield parse_record(fields, f"{task.name}:{split}:{shard + position * shards}")


def _column(value: Any) -> list[Any]:
    if hasattr(value, "row_splits"):
        return np.split(value.values, value.row_splits[1:-1])
    if value.dtype == object:
        return [text.decode() if isinstance(text, bytes) else text for text in value.tolist()]
    return list(value)


def _seedable(task: "seqio.Task") -> "seqio.Task":
    """The task, with a source that takes a seed: SeqIO wants all or none of a task seeded."""
    import seqio

    make = getattr(task.source, "_dataset_fn", None)
    if make is None or "seed" in inspect.signature(make).parameters:
        return task

    def seeded(split: str, shuffle_files: bool, seed: int | None = None) -> "tf.data.Dataset":
        return make(split=split, shuffle_files=shuffle_files)

    return task.replace(source=seqio.FunctionDataSource(seeded, splits=task.source.splits))


def write_part(
    unit: Unit, task: "seqio.Task", formatter: ExampleFormatter, seed: int
) -> dict[str, Any]:
    """Makes one part and its report; returns the report.

    Every random choice of the task's preprocessors follows from (seed, task, shard, variant).
    A UserError of a record names the file and line, or task and index.
    """
    part, text = PartBuilder(), is_text_task(task)
    drawn = stable_hash("render", seed, unit.task, unit.variant, unit.shard, bits=31)
    read: Callable[..., Iterator[Any]] = text_records if text else records
    stream = read(task, unit.split, unit.shard, unit.shards, drawn)
    while batch := list(itertools.islice(stream, _TOGETHER)):
        indices = [unit.shard + part.add_record() * unit.shards for _ in batch]
        if text:
            made = formatter.encode_each(batch)
        else:
            places = (f"{unit.task}:{unit.split}:{index}" for index in indices)
            made = map(encode_tokenised, batch, itertools.repeat(formatter), places)
        for index, examples in zip(indices, made, strict=True):
            if isinstance(examples, Dropped):
                part.refuse(examples.reason)
                continue
            for example in examples:
                part.add(example, index)
    return part.write(unit.path)


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Keeps the lines that TensorFlow writes while it is imported off the terminal.

    They come from C++ and obey no log level; a failed import is an exception all the same.
    Later ones do: without it TensorFlow prints a traceback for every bad record.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@functools.lru_cache(maxsize=1)
def _worker_state(config: Config, tokenizer_path: str) -> ExampleFormatter:
    """What a worker process sets up once."""
    with quiet_import():
        from ift_jax.preparation import seqio_registry
        from ift_jax.text.tokenizers.load import load_run_tokenizer

    seqio_registry.import_modules(config.data.modules, config.data.root)
    return ExampleFormatter.from_config(config, load_run_tokenizer(config, tokenizer_path))


def run_unit(config: Config, tokenizer_path: str, unit: Unit) -> dict[str, Any]:
    """`write_part` in a worker process, which finds the task by its name."""
    formatter = _worker_state(config, tokenizer_path)
    import seqio

    return write_part(unit, seqio.TaskRegistry.get(unit.task), formatter, config.seed)
