"""Writing a token store: its parts, one by one, and then the manifest that makes it whole."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ift_jax.data.store import FORMAT_VERSION, MANIFEST, part_path
from ift_jax.io.files import json_bytes, sync_folder, write
from ift_jax.text.examples import Encoded


class PartBuilder:
    """Collects the examples of one part, and what happened to those that are not in it."""

    def __init__(self) -> None:
        self._records, self._refused = 0, Counter[str]()
        self._examples: list[Encoded] = []
        self._index: list[int] = []

    def add_record(self) -> int:
        """Counts a record of the source; returns its position among those of this part."""
        self._records += 1
        return self._records - 1

    def refuse(self, reason: str) -> None:
        self._refused[reason] += 1

    def add(self, example: Encoded, index: int) -> None:
        """Adds an example; one without a trained token is refused and counted."""
        if not example.weights.any():
            return self.refuse("nothing_trained")
        self._examples.append(example)
        self._index.append(index)

    def write(self, path: Path) -> dict[str, Any]:
        """Writes the part, then its report beside it; returns the report."""
        examples = self._examples
        trained = [int(np.count_nonzero(e.weights)) for e in examples]
        columns = {
            "tokens": _lists([e.tokens for e in examples], np.int32),
            "weights": _lists([e.weights for e in examples], np.float32),
            "encoder_tokens": _lists([e.encoder_tokens for e in examples], np.int32),
            "trained_tokens": pa.array(trained, pa.int32()),
            "prompt_length": pa.array([e.prompt_length for e in examples], pa.int32()),
            "prefix_length": pa.array([e.prefix_length for e in examples], pa.int32()),
            "index": pa.array(self._index, pa.int64()),
            "references": pa.array([e.references for e in examples], pa.list_(pa.string())),
            "choices": pa.array(
                [[text for text, _ in e.choices] for e in examples], pa.list_(pa.string())
            ),
            "choice_tokens": pa.array(
                [[ids for _, ids in e.choices] for e in examples], pa.list_(pa.list_(pa.int32()))
            ),
        }
        batch, sink = pa.record_batch(columns), pa.BufferOutputStream()
        with pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        content = sink.getvalue()
        write(path, content)
        lengths = [len(e.tokens) for e in examples]
        report = {
            "sha256": hashlib.sha256(content).hexdigest(),
            "records": self._records,
            "examples": len(examples),
            "tokens": sum(lengths),
            "encoder_tokens": sum(len(e.encoder_tokens) for e in examples),
            "trained_tokens": sum(trained),
            "refused": dict(self._refused),
            "truncated_examples": sum(e.truncated > 0 for e in examples),
            "truncated_tokens": sum(e.truncated for e in examples),
            "control_strings": sum(e.control_strings for e in examples),
            # How many are at most 1, 2, 4, 8, ... tokens and above the power before it.
            "lengths": dict(Counter(str(2 ** (max(n, 1) - 1).bit_length()) for n in lengths)),
        }
        write(path.with_suffix(".json"), json_bytes(report))
        return report


def _lists(values: Sequence[np.ndarray], dtype: type) -> pa.Array:
    """Rows of different lengths as one Arrow column with 64-bit offsets."""
    offsets = np.zeros(len(values) + 1, np.int64)
    np.cumsum([len(v) for v in values], out=offsets[1:])
    flat: np.ndarray = np.concatenate([np.zeros(0, dtype), *values], dtype=dtype)
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(flat))


def _sum(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sums part reports: numbers are added, tables of counts key by key."""
    columns = {name: [report[name] for report in reports] for name in reports[0]}
    return {
        name: dict(sum(map(Counter, of), Counter())) if isinstance(of[0], dict) else sum(of)
        for name, of in columns.items()
    }


def finish_store(partial: Path, final: Path, manifest: dict[str, Any]) -> None:
    """Writes the manifest of a folder whose parts are all there, and gives it its name.

    In a bucket it has its name from the beginning, and is a store once the manifest is there.
    """
    parts = [part_path(partial, i) for i in range(manifest["shards"] * manifest["variants"])]
    reports = [json.loads(part.with_suffix(".json").read_bytes()) for part in parts]
    digests = [report.pop("sha256") for report in reports]
    manifest = {"format_version": FORMAT_VERSION, "sha256": digests, **_sum(reports), **manifest}
    write(partial / MANIFEST, json_bytes(manifest))
    if partial != final:
        os.rename(partial, final)
        sync_folder(final.parent)
