"""Which tasks may be read in shards: those known to make each example from one record alone.

Everything else gives the examples of one SeqIO host (`seqio.ShardInfo(0, 1)`) only if the whole
split goes through one pipeline: `dataset.take(1000)` of three shards is 3,000 examples, and what
draws from SeqIO's seeds draws the same for the first record of every shard.
"""

import functools
from typing import Any

import seqio

from ift_jax.sources.base import PythonDataSource

# SeqIO's own preprocessors that only map a function over the dataset.
_PER_EXAMPLE = (
    seqio.preprocessors.tokenize,
    seqio.preprocessors.tokenize_and_append_eos,
    seqio.preprocessors.append_eos,
    seqio.preprocessors.append_eos_after_trim,
)


@seqio.map_over_dataset
def _unchanged(example: Any) -> Any:
    return example


def may_be_sharded(task: seqio.Task) -> bool:
    """Return whether the shards of a split, taken together, are the split.

    They are for a source of ours, which gives the records of a shard by their indices, if every
    preprocessor is known to map a function over the dataset without a seed from SeqIO.
    """
    if not isinstance(task.source, PythonDataSource):
        return False
    return all(_is_per_example(preprocessor) for preprocessor in task.preprocessors)


def _is_per_example(preprocessor: Any) -> bool:
    while isinstance(preprocessor, functools.partial):
        preprocessor = preprocessor.func
    if preprocessor in _PER_EXAMPLE:
        return True
    # What `seqio.map_over_dataset` returns runs the code of SeqIO's wrapper, whatever function it
    # wraps. With seeds it is another wrapper.
    code = getattr(preprocessor, "__code__", None)
    return code is not None and code == _unchanged.__code__
