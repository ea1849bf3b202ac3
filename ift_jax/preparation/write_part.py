"""Making one part of a store: read it in one pass, encode its examples, write them with reports.

`write_part` is what every executor calls: in this process, in others, or in Beam's workers.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ift_jax.config.schema import Config
from ift_jax.preparation.shards import Part
from ift_jax.preparation.store_writer import PartBuilder, summed
from ift_jax.preparation.tensorflow_import import quiet_tensorflow_import
from ift_jax.text.dropped import Dropped
from ift_jax.text.examples import Encoded, ExampleFormatter

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


def _write_file(
    path: Path, records: Iterable[tuple[int, list[Encoded] | Dropped]]
) -> dict[str, Any]:
    """Write what records become to a file, and its report beside it; return the report."""
    builder = PartBuilder()
    for index, made in records:
        builder.add_record()
        if isinstance(made, Dropped):
            builder.drop(made)
            continue
        for example in made:
            builder.add(example, index)
    return builder.write(path)


def _encoded(
    reading: "Reading", formatter: ExampleFormatter
) -> Iterator[tuple[int, list[Encoded] | Dropped]]:
    """Yield the index of each record in the split, and what it becomes."""
    from ift_jax.preparation import read_examples
    from ift_jax.preparation.tokenized_tasks import encode_tokenized

    index = reading.shard
    if not read_examples.is_text_task(reading.task):
        for fields in read_examples.examples(reading):
            where = f"{reading.task.name}:{reading.split}:{index}"
            yield index, encode_tokenized(fields, formatter, where)
            index += reading.shards
        return
    records = read_examples.text_records(reading)
    while batch := list(itertools.islice(records, _TOGETHER)):
        for made in formatter.encode_each(batch):
            yield index, made
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

    seqio_registry.import_modules(config.data.modules, config.data.root)
    tokenizer = load_tokenizer(tokenizer_path, config.tokenizer)
    return ExampleFormatter.from_config(config, tokenizer)
