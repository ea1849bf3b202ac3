"""Making one part of a store: read it in one pass, encode its examples, write them with reports.

`write_part` is what every executor calls: in this process, in others, or in Beam's workers.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ift_jax.config.schema import Config
from ift_jax.errors import UserError
from ift_jax.preparation.shards import Part
from ift_jax.preparation.store_writer import PartBuilder, summed
from ift_jax.preparation.tensorflow_import import quiet_tensorflow_import
from ift_jax.text.dropped import Dropped
from ift_jax.text.encoded import Encoded
from ift_jax.text.examples import ExampleFormatter
from ift_jax.text.rows.alike import with_count
from ift_jax.text.rows.parse_record import RowOptions

if TYPE_CHECKING:
    import seqio

    from ift_jax.preparation.read_examples import Reading

_TOGETHER = 32  # Records that go from step to step together: few enough for a core's cache.


def write_part(
    part: Part, task: "seqio.Task", formatter: ExampleFormatter, seed: int
) -> dict[str, Any]:
    """Make a part and its reports.

    Every random choice of the task's source and preprocessors follows from (seed, task, variant);
    see `Part.drawn_seed`.

    Args:
        part: What to make.
        task: The task of that name.
        formatter: Encodes the examples.
        seed: The run's seed, `config.seed`.

    Returns:
        The sum of its reports; see `PartBuilder.write`.

    Raises:
        UserError: A record cannot be read or encoded (names file and line, or task and index), or
            the examples are others each time that they are read.
    """
    from ift_jax.preparation.read_examples import Reading
    from ift_jax.preparation.repeatable import check_repeatable
    from ift_jax.preparation.sequence_length import sequence_length

    lengths = sequence_length(task, formatter.architecture, formatter.limits)
    reading = Reading.of_part(part, task, seed, lengths)
    if part.shard == 0:
        check_repeatable(reading)
    encoded = _encoded(reading, formatter)
    *full, last = part.paths
    reports = []
    for path in full:
        records = itertools.islice(encoded, part.examples_per_file)
        reports.append(_write_file(path, records))
    return summed([*reports, _write_file(last, encoded)])


class _Made(NamedTuple):
    """What a record became."""

    position: int  # In the split.
    made: list[Encoded] | Dropped
    unread: tuple[str, ...] = ()  # The names of its fields that nothing read.


def _write_file(path: Path, records: Iterable[_Made]) -> dict[str, Any]:
    """Write what records become to a file, and its report beside it; return the report."""
    builder = PartBuilder()
    for index, made, unread in records:
        builder.add_record(unread)
        if isinstance(made, Dropped):
            builder.drop(made)
            continue
        for example in made:
            builder.add(example, index)
    return builder.write(path)


def _encoded(reading: "Reading", formatter: ExampleFormatter) -> Iterator[_Made]:
    """Yield what each record of a reading becomes."""
    from ift_jax.preparation import read_examples
    from ift_jax.preparation.tokenized_tasks import encode_tokenized

    index = reading.shard
    if not read_examples.is_text_task(reading.task):
        if formatter.filters.names:
            raise UserError(
                f"config.data.filters: the task {reading.task.name!r} hands on token ids, which no "
                "filter reads; filter its rows before"
            )
        for fields in read_examples.examples(reading):
            where = f"{reading.task.name}:{reading.split}:{index}"
            yield _Made(index, encode_tokenized(fields, formatter, where))
            index += reading.shards
        return
    records = read_examples.text_records(reading)
    while batch := list(itertools.islice(records, _TOGETHER)):
        encoded = formatter.encode_each(batch)
        for position, record in enumerate(batch):
            try:
                made = next(encoded)
            except UserError as error:
                later = itertools.chain(batch[position + 1 :], records)
                attempts = (functools.partial(formatter.encode, record) for record in later)
                raise with_count(error, attempts) from None
            yield _Made(index, made, record.unread)
            index += reading.shards


def write_part_by_name(config: Config, tokenizer_path: str, part: Part) -> dict[str, Any]:
    """Make a part in a worker process, which finds the task by its name; as `write_part`."""
    formatter = _worker_formatter(config, tokenizer_path)
    import seqio

    return write_part(part, seqio.TaskRegistry.get(part.task), formatter, config.seed)


@functools.lru_cache(maxsize=1)
def _worker_formatter(config: Config, tokenizer_path: str) -> ExampleFormatter:
    """Set up a worker process once: import the tasks and load the tokenizer."""
    with quiet_tensorflow_import():
        from ift_jax.preparation import seqio_registry
        from ift_jax.text.tokenizers.load import load_tokenizer

    seqio_registry.import_modules(config.data.modules, config.data.root, RowOptions.of(config.data))
    tokenizer = load_tokenizer(tokenizer_path, config.tokenizer)
    return ExampleFormatter.from_config(config, tokenizer)
