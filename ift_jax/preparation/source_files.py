"""What a SeqIO source reads: a fingerprint of it, and the local files."""

import os
from typing import Any

import seqio
import tensorflow as tf

from ift_jax.errors import of_users_code
from ift_jax.sources.base import PythonDataSource


def source_fingerprint(task: seqio.Task, split: str) -> Any:
    """Return what a task's source reads for a split, as a JSON value.

    Our sources hash the content. Of SeqIO's own, TFDS gives name and version, and files give size
    and modification time.

    Raises:
        UserError: The data is not on this machine, or the source raises an exception.
    """
    with of_users_code(_what(task, split)):
        return _fingerprint(task.source, split)


def _fingerprint(source: seqio.DataSource, split: str) -> Any:
    if isinstance(source, PythonDataSource):
        return source.fingerprint(split)
    identity: list[Any] = []
    if isinstance(source, seqio.TfdsDataSource):
        identity = [str(source.tfds_dataset.name), str(source.splits)]
    elif isinstance(source, seqio.FileDataSource):
        for path in source.list_shards(split):
            status = tf.io.gfile.stat(path)
            identity.append([path, status.length, status.mtime_nsec])
    return [type(source).__qualname__, split, identity]


def source_files(task: seqio.Task, split: str) -> list[str]:
    """Return the local files that a task's source reads for a split, as far as it tells.

    Raises:
        UserError: The source raises an exception.
    """
    source = task.source
    with of_users_code(_what(task, split)):
        if isinstance(source, PythonDataSource):
            return list(source.files(split))
        if isinstance(source, seqio.FileDataSource):
            paths = source.list_shards(split)
            return [os.path.abspath(path) for path in paths if os.path.isfile(path)]
    return []


def count_input_examples(task: seqio.Task, split: str) -> int | None:
    """Return the number of records of a task's source, or None if it does not tell.

    Raises:
        UserError: The source raises an exception.
    """
    with of_users_code(_what(task, split)):
        count: int | None = task.num_input_examples(split)
        return count


def _what(task: seqio.Task, split: str) -> str:
    return f"task {task.name!r}, split {split!r}, source {type(task.source).__name__}"
