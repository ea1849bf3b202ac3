"""Writing a token store: its parts, one by one, and then the manifest that makes it whole."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ift_jax.data.store import FORMAT_VERSION, MANIFEST, manifest_bytes, part_path
from ift_jax.io.files import json_bytes, make_durable, sync_folder, write
from ift_jax.io.json_reader import read_json_file
from ift_jax.io.paths import is_remote
from ift_jax.preparation.drop_limits import over_limit_key
from ift_jax.text.dropped import NOTHING_TRAINED, Dropped
from ift_jax.text.encoded import Encoded


class PartBuilder:
    """Collects the examples of one part, and counts those that are dropped."""

    def __init__(self) -> None:
        self._records = 0
        self._dropped = Counter[str]()
        self._over_limit = Counter[str]()
        self._unread = Counter[str]()
        self._examples: list[Encoded] = []
        self._indices: list[int] = []

    def add_record(self, unread: Iterable[str] = ()) -> None:
        """Count a record of the source, whatever becomes of it.

        Args:
            unread: The names of its fields that nothing read.
        """
        self._records += 1
        self._unread.update(unread)

    def drop(self, dropped: Dropped) -> None:
        """Count a record that gives no example."""
        self._dropped[dropped.reason] += 1
        if dropped.field:
            self._count_over_limit(dropped.field, dropped.length)

    def _count_over_limit(self, field: str, length: int) -> None:
        """Count an example that a limit drops or truncates, by the length that it needs."""
        self._over_limit[over_limit_key(field, length)] += 1

    def add(self, example: Encoded, index: int) -> None:
        """Add an example, or drop it if it has no trained token.

        Args:
            example: The example.
            index: The position of its record in the split.
        """
        if not example.weights.any():
            self.drop(NOTHING_TRAINED)
            return
        if example.truncated:
            is_decoder = not len(example.encoder_tokens)
            tokens = example.tokens if is_decoder else example.encoder_tokens
            field = "max_length" if is_decoder else "inputs_length"
            self._count_over_limit(field, len(tokens) + example.truncated)
        self._examples.append(example)
        self._indices.append(index)

    def write(self, path: Path) -> dict[str, Any]:
        """Write the part, then its report beside it.

        Neither is durable before `finish_store`: what a crash leaves of a store that is being built
        is compared with its reports.

        Returns:
            The report: counts of records, examples, tokens, and what was dropped or truncated (what
            was too long, by its length), of fields that were not read or not written, of what
            policies did, a histogram of lengths, and the hash of the part.
        """
        content = _arrow_file(self._columns())
        write(path, content, durable=False)
        report = self._report(hashlib.sha256(content).hexdigest())
        write(path.with_suffix(".json"), json_bytes(report), durable=False)
        return report

    def _trained_tokens(self) -> list[int]:
        return [int(np.count_nonzero(example.weights)) for example in self._examples]

    def _columns(self) -> dict[str, pa.Array]:
        examples = self._examples
        strings = pa.list_(pa.string())
        choices = [[text for text, _ in example.choices] for example in examples]
        choice_tokens = [[ids for _, ids in example.choices] for example in examples]
        return {
            "tokens": _ragged([e.tokens for e in examples], np.int32),
            "weights": _ragged([e.weights for e in examples], np.float32),
            "encoder_tokens": _ragged([e.encoder_tokens for e in examples], np.int32),
            "trained_tokens": pa.array(self._trained_tokens(), pa.int32()),
            "prompt_length": pa.array([e.prompt_length for e in examples], pa.int32()),
            "prefix_length": pa.array([e.prefix_length for e in examples], pa.int32()),
            "rejected_start": pa.array([e.rejected_start for e in examples], pa.int32()),
            "index": pa.array(self._indices, pa.int64()),
            "references": pa.array([e.references for e in examples], strings),
            "choices": pa.array(choices, strings),
            "choice_tokens": pa.array(choice_tokens, pa.list_(pa.list_(pa.int32()))),
        }

    def _report(self, sha256: str) -> dict[str, Any]:
        examples = self._examples
        lengths = [len(example.tokens) for example in examples]
        # How many are at most 1, 2, 4, 8, ... tokens long and above the power before it.
        histogram = Counter(str(2 ** (max(n, 1) - 1).bit_length()) for n in lengths)
        return {
            "sha256": sha256,
            "records": self._records,
            "examples": len(examples),
            "pairs": sum(example.rejected_start > 0 for example in examples),
            "tokens": sum(lengths),
            "encoder_tokens": sum(len(example.encoder_tokens) for example in examples),
            "trained_tokens": sum(self._trained_tokens()),
            "dropped": dict(self._dropped),
            "over_limit": dict(self._over_limit),
            "truncated_examples": sum(example.truncated > 0 for example in examples),
            "truncated_tokens": sum(example.truncated for example in examples),
            "control_strings": sum(example.control_strings for example in examples),
            "unread": dict(self._unread),
            "unwritten": dict(Counter(name for e in examples for name in e.unwritten)),
            "notes": dict(sum((Counter(e.notes) for e in examples if e.notes), Counter())),
            "lengths": dict(histogram),
        }


def _ragged(values: Sequence[np.ndarray], dtype: type) -> pa.Array:
    """Return rows of different lengths as one Arrow column with 64-bit offsets."""
    offsets = np.zeros(len(values) + 1, np.int64)
    np.cumsum([len(row) for row in values], out=offsets[1:])
    flat: np.ndarray = np.concatenate([np.zeros(0, dtype), *values], dtype=dtype)
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(flat))


def _arrow_file(columns: dict[str, pa.Array]) -> pa.Buffer:
    """Return an Arrow IPC file of one record batch."""
    batch = pa.record_batch(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def finish_store(partial: Path, final: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest of a folder whose parts are all there, and give it its final name.

    The store is durable then. Waiting for the disk takes nearly all of the time, and many stores
    can wait at once.

    A folder in a bucket, which cannot be renamed, has its name from the beginning and is a store
    once the manifest is there.

    Args:
        partial: The folder with the parts.
        final: The folder's name as a store.
        manifest: What the manifest says besides the sums of the parts' reports.
    """
    n_parts = manifest["shards"] * manifest["variants"]
    paths = [part_path(partial, i).with_suffix(".json") for i in range(n_parts)]
    reports = [read_json_file(path) for path in paths]
    hashes = [report["sha256"] for report in reports]
    whole = {
        "format_version": FORMAT_VERSION,
        "sha256": hashes,
        **summed(reports),
        **manifest,
    }
    if not is_remote(partial):
        for i in range(n_parts):
            make_durable(part_path(partial, i))
    write(partial / MANIFEST, manifest_bytes(whole))  # The names of the parts are durable with it.
    if partial != final:
        os.rename(partial, final)
        sync_folder(final.parent)


def summed(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the sum of reports: numbers are added, tables of counts key by key.

    A sum has no hash of a part.
    """
    total: dict[str, Any] = {}
    for name, first in reports[0].items():
        if name == "sha256":
            continue
        values = [report[name] for report in reports]
        if isinstance(first, dict):
            total[name] = dict(sum(map(Counter, values), Counter()))
        else:
            total[name] = sum(values)
    return total
