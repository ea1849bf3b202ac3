"""The lengths of a sample of a mixture's examples, measured before the run's lengths are chosen."""

import itertools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ift_jax.config.schema import Config
from ift_jax.errors import UserError
from ift_jax.preparation.tensorflow_import import quiet_tensorflow_import
from ift_jax.text.dropped import Dropped
from ift_jax.text.examples import ExampleFormatter
from ift_jax.text.rows.parse_record import RowOptions
from ift_jax.text.tokenizers.base import Tokenizer

RECORDS = 2000  # About as many are encoded, evenly spread over each task.
_TOGETHER = 32


class LengthSample(NamedTuple):
    """The lengths of some examples.

    Attributes:
        encoder: int64[N], the tokens of each example's encoder part; 0 for a decoder.
        decoder: int64[N], its other tokens.
        n_examples: The number of examples in all tasks, estimated from the sample.
        splits: The splits that some task has.
    """

    encoder: npt.NDArray[np.int64]
    decoder: npt.NDArray[np.int64]
    n_examples: int
    splits: frozenset[str]


def sample_lengths(config: Config, tokenizer: Tokenizer) -> LengthSample:
    """Encodes about `RECORDS` records of the train mixture, which is read but not stored.

    Args:
        config: A config whose lengths are long enough for every example.
        tokenizer: The run's tokenizer.

    Raises:
        UserError: The data cannot be read, or no record of the sample becomes an example.
    """
    with quiet_tensorflow_import():
        from ift_jax.preparation import seqio_registry
        from ift_jax.preparation.read_examples import Reading, text_records
        from ift_jax.preparation.sequence_length import sequence_length
        from ift_jax.preparation.source_files import count_input_examples

    data = config.data
    seqio_registry.import_modules(data.modules, data.root, RowOptions.of(data))
    provider = seqio_registry.resolve(data.mixture, "data.mixture")
    tasks = seqio_registry.tasks_of(provider, data.split, "data.split")
    counts = [count_input_examples(task, data.split) or 0 for task in tasks]
    stride = max(1, -(-sum(counts) // RECORDS))
    formatter = ExampleFormatter.from_config(config, tokenizer)
    encoder: list[int] = []
    decoder: list[int] = []
    n_sampled = 0
    dropped: dict[str, int] = {}
    for task in tasks:
        lengths = sequence_length(task, config.model.architecture, data)
        records = text_records(Reading(task, data.split, 0, stride, config.seed, lengths))
        while batch := list(itertools.islice(records, _TOGETHER)):
            n_sampled += len(batch)
            for made in formatter.encode_each(batch):
                if isinstance(made, Dropped):
                    dropped[made.reason] = dropped.get(made.reason, 0) + 1
                    continue
                encoder += [len(example.encoder_tokens) for example in made]
                decoder += [len(example.tokens) for example in made]
    if not decoder:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
        raise UserError(
            f"--data: none of {n_sampled} records becomes an example ({reasons or 'it is empty'})"
        )
    return LengthSample(
        np.array(encoder, np.int64),
        np.array(decoder, np.int64),
        n_examples=round(sum(counts) * len(decoder) / n_sampled),
        splits=frozenset().union(*map(seqio_registry.splits_of, tasks)),
    )
