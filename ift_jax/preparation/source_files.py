"""What a SeqIO source reads."""

import os
from typing import Any

import seqio
import tensorflow as tf


def source_fingerprint(source: seqio.DataSource, split: str) -> Any:
    """What a source reads, as a JSON value: ours hash contents; SeqIO's give what they can."""
    if hasattr(source, "fingerprint"):
        return source.fingerprint(split)
    files: list[Any] = []
    if isinstance(source, seqio.TfdsDataSource):
        files = [str(source.tfds_dataset.name), str(source.splits)]
    elif isinstance(source, seqio.FileDataSource):
        stats = [(path, tf.io.gfile.stat(path)) for path in source.list_shards(split)]
        files = [[path, stat.length, stat.mtime_nsec] for path, stat in stats]
    return [type(source).__qualname__, split, files]


def source_files(source: seqio.DataSource, split: str) -> list[str]:
    """The local files that a source reads for a split, as far as it tells."""
    if hasattr(source, "files"):
        return list(source.files(split))
    if isinstance(source, seqio.FileDataSource):
        return [os.path.abspath(f) for f in source.list_shards(split) if os.path.isfile(f)]
    return []
