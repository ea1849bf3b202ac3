"""The token store: Arrow IPC part files, read by memory map, and a manifest.

A store is one folder for one split of one task, named `<task>-<split>-<key>` by a hash of all
that determines it. Part `v * shards + k` is shard k of the source in rendering (variant) v, as
one record batch: a column of a part is one contiguous array. `manifest.json` is written last, and
the folder gets its name only then: a folder under this name is a whole store.
"""

import contextlib
import dataclasses
import fcntl
import functools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ift_jax.errors import UserError
from ift_jax.text.formats import Encoded

Log = Callable[[str], None]
FORMAT_VERSION = 2
MANIFEST = "manifest.json"


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file that, whatever happens, is afterwards whole or not there."""
    temporary = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def json_bytes(value: Any) -> bytes:
    """A JSON value as it is written: the same value gives the same bytes."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def read_json(path: Path) -> Any:
    """The JSON value in a file, or None if there is none."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def locked(store_dir: Path, name: str, log: Log) -> Iterator[None]:
    """Holds the lock of a store; waits while another process has it. A dead one holds none."""
    folder = store_dir / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"{name}.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log(f"waiting for another process that builds {name}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def part_path(folder: Path, part: int) -> Path:
    """The file of a part; its report is beside it, with the suffix `.json`."""
    return folder / f"part-{part:05d}.arrow"


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
        write_atomically(path, sink.getvalue())
        lengths = [len(e.tokens) for e in examples]
        report = {
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
        write_atomically(path.with_suffix(".json"), json_bytes(report))
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
    """Writes the manifest of a folder whose parts are all there, and gives it its name."""
    parts = [part_path(partial, i) for i in range(manifest["shards"] * manifest["variants"])]
    counts = _sum([json.loads(part.with_suffix(".json").read_bytes()) for part in parts])
    manifest = {"format_version": FORMAT_VERSION, **counts, **manifest}
    write_atomically(partial / MANIFEST, json_bytes(manifest))
    os.rename(partial, final)
    sync_folder(final.parent)


class Rendering:
    """One variant of a store: N examples in the order of the parts.

    Attributes:
        lengths: int32[N], tokens of each example (encoder-decoder: of the decoder).
        encoder_lengths: int32[N], zero for decoder-only stores.
        trained_tokens: int32[N], tokens with a non-zero loss weight.
        prompt_lengths, prefix_lengths: int32[N]; a prefix ends at the first trained token.
        indices: int64[N], position of the record in the source.
    """

    def __init__(self, paths: Sequence[Path]):
        parts = []
        for path in paths:
            # The mapping outlives the file, so that thousands of parts need no descriptors.
            with pa.memory_map(str(path)) as file:
                parts.append(pa.ipc.open_file(file).get_batch(0))

        def joined(name: str) -> np.ndarray:
            return np.concatenate([part.column(name).to_numpy() for part in parts])

        def starts_and_lengths(name: str) -> tuple[np.ndarray, np.ndarray]:
            offsets = [part.column(name).offsets.to_numpy() for part in parts]
            starts = np.concatenate([of_part[:-1] for of_part in offsets])
            return starts, np.concatenate([np.diff(o) for o in offsets]).astype(np.int32)

        def flat(name: str) -> list[np.ndarray]:
            return [part.column(name).values.to_numpy() for part in parts]

        # Of each part, views of the mapped file; starts count in those of the example's part.
        self._tokens, self._weights = flat("tokens"), flat("weights")
        self._encoder_tokens = flat("encoder_tokens")
        names = ("references", "choices", "choice_tokens")
        self._nested = {name: [part.column(name) for part in parts] for name in names}
        self._starts, self.lengths = starts_and_lengths("tokens")
        self._encoder_starts, self.encoder_lengths = starts_and_lengths("encoder_tokens")
        sizes = [len(part) for part in parts]
        self._first = np.cumsum([0, *sizes])
        self._part_of = np.repeat(np.arange(len(sizes)), sizes).astype(np.uint32)
        self.trained_tokens, self.indices = joined("trained_tokens"), joined("index")
        self.prompt_lengths, self.prefix_lengths = joined("prompt_length"), joined("prefix_length")

    def __len__(self) -> int:
        return len(self.lengths)

    def tokens_and_weights(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """int32[lengths[i]] ids and float32[lengths[i]] loss weights: views of the mapped file."""
        part, start = self._part_of[i], self._starts[i]
        stop = start + self.lengths[i]
        return self._tokens[part][start:stop], self._weights[part][start:stop]

    def tokens(self, i: int) -> np.ndarray:
        return self.tokens_and_weights(i)[0]

    def weights(self, i: int) -> np.ndarray:
        return self.tokens_and_weights(i)[1]

    def encoder_tokens(self, i: int) -> np.ndarray:
        """int32[encoder_lengths[i]], a view."""
        start = self._encoder_starts[i]
        return self._encoder_tokens[self._part_of[i]][start : start + self.encoder_lengths[i]]

    def prompt_length(self, i: int) -> int:
        return int(self.prompt_lengths[i])

    def index(self, i: int) -> int:
        return int(self.indices[i])

    def _list(self, name: str, i: int) -> list[Any]:
        part = self._part_of[i]
        return self._nested[name][part][i - int(self._first[part])].as_py()

    def references(self, i: int) -> tuple[str, ...]:
        return tuple(self._list("references", i))

    def choices(self, i: int) -> list[tuple[str, list[int]]]:
        """The answers to be ranked, each with its ids; empty where the answer is free."""
        pairs = zip(self._list("choices", i), self._list("choice_tokens", i), strict=True)
        return list(pairs)


@dataclasses.dataclass(frozen=True, eq=False)
class TokenStore:
    """A whole store on disk. Its examples are those of variant 0; see `variant`."""

    path: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: str | Path) -> "TokenStore":
        """Opens a store; a UserError if no whole one of this version is there."""
        path = Path(path)
        if (manifest := read_json(path / MANIFEST)) is None:
            why = f"{path} is not a whole token store ({MANIFEST} is missing or broken)"
        elif (found := manifest.get("format_version")) != FORMAT_VERSION:
            why = f"{path / MANIFEST}: format_version is {found}, expected {FORMAT_VERSION}"
        else:
            return cls(path, manifest)
        raise UserError(f"{why}: run `ift prepare` again")

    @property
    def n_variants(self) -> int:
        return self.manifest["variants"]

    @functools.cached_property
    def renderings(self) -> list[Rendering]:
        """The variants; one may hold more or fewer examples than another."""
        n, variants = self.manifest["shards"], range(self.n_variants)
        return [Rendering([part_path(self.path, v * n + k) for k in range(n)]) for v in variants]

    def variant(self, v: int) -> Rendering:
        """The examples as rendered for variant v."""
        return self.renderings[v]

    def __len__(self) -> int:
        return len(self.renderings[0])

    def __getattr__(self, name: str) -> Any:
        # lengths, tokens(i), references(i), ...: those of variant 0.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.renderings[0], name)
