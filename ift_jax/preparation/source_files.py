"""What a SeqIO source reads: a fingerprint of it, and the local files."""

import os
from typing import Any

import seqio
import tensorflow as tf

from ift_jax.sources.base import PythonDataSource


def source_fingerprint(source: seqio.DataSource, split: str) -> Any:
    """Return what a source reads for a split, as a JSON value.

    Our sources hash the content. Of SeqIO's own, TFDS gives name and version, and files give size
    and modification time.

    Raises:
        UserError: The data is not on this machine.
    """
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


def source_files(source: seqio.DataSource, split: str) -> list[str]:
    """Return the local files that a source reads for a split, as far as it tells."""
    if isinstance(source, PythonDataSource):
        return list(source.files(split))
    if isinstance(source, seqio.FileDataSource):
        paths = source.list_shards(split)
        return [os.path.abspath(path) for path in paths if os.path.isfile(path)]
    return []
