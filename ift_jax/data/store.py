"""The token store: Arrow IPC part files, read by memory map, and a manifest.

A store is one folder for one split of one task, named `<task>-<split>-<key>` after a hash of all
that determines it. Part `v * shards + k` holds shard k of the source in variant v (or, of a task
that is read in one pass, the k-th piece of it), as one record batch, so a column of a part is one
contiguous array. `manifest.json` is written last, and the folder gets its name only then: a folder
with such a name is a complete store.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ift_jax.errors import UserError
from ift_jax.io.files import json_bytes, json_digest, read_json
from ift_jax.io.json_reader import parse_json

FORMAT_VERSION = 4
MANIFEST = "manifest.json"


class DamagedStore(UserError):
    """A store that is not what was prepared; preparing makes it again."""


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a store, local or in a bucket.

    Raises:
        DamagedStore: The folder does not hold a complete store of this version.
    """
    cure = "run `ift prepare` again"
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict):
        raise DamagedStore(
            f"{folder} is not a complete token store ({MANIFEST} is missing or broken): {cure}"
        )
    found = manifest.get("format_version")
    if found != FORMAT_VERSION:
        raise DamagedStore(
            f"{folder / MANIFEST}: format_version is {found}, expected {FORMAT_VERSION}: {cure}"
        )
    if manifest.pop("sum", None) != json_digest(manifest):
        raise DamagedStore(
            f"{folder / MANIFEST}: does not hold the values that were written: {cure}"
        )
    return manifest


def manifest_bytes(manifest: dict[str, Any]) -> bytes:
    """The file of a manifest, which holds a hash of all that it says."""
    as_read = parse_json(json_bytes(manifest), MANIFEST)  # Keys are strings, tuples lists.
    return json_bytes(manifest | {"sum": json_digest(as_read)})


def part_path(folder: Path, part: int) -> Path:
    """The file of a part; its report is beside it, with the suffix `.json`."""
    return folder / f"part-{part:05d}.arrow"


class _ListColumn:
    """A column with a list of numbers for each example, over all parts of a variant.

    Attributes:
        values: The numbers of each part, a view of the mapped file.
        starts: int32[N], the start of each example's list in the values of its part.
        lengths: int32[N], the length of each example's list.
    """

    def __init__(self, parts: Sequence[pa.RecordBatch], name: str):
        columns = [part.column(name) for part in parts]
        offsets = [column.offsets.to_numpy() for column in columns]
        self.values = [column.values.to_numpy() for column in columns]
        self.starts = np.concatenate([of_part[:-1] for of_part in offsets])
        self.lengths = np.concatenate([np.diff(o) for o in offsets]).astype(np.int32)

    def get(self, part: int, i: int) -> np.ndarray:
        """The list of example i, which is in the given part; a view."""
        start = self.starts[i]
        return self.values[part][start : start + self.lengths[i]]


class Side(NamedTuple):
    """One sequence of an example: all of it, or one side of a pair."""

    name: str  # "", "chosen" or "rejected".
    tokens: np.ndarray  # int32[n], a view.
    weights: np.ndarray  # float32[n], a view.


class Variant:
    """One variant of a store: N examples in the order of the parts.

    Attributes:
        lengths: int32[N], tokens of each example (of the decoder, for an encoder-decoder).
        encoder_lengths: int32[N], zero in stores for a decoder.
        trained_tokens: int32[N], tokens with a loss weight that is not zero.
        prompt_lengths: int32[N], tokens of each prompt.
        prefix_lengths: int32[N], tokens before the first trained one.
        rejected_starts: int32[N], tokens of the chosen side of each pair, which the rejected one
            follows; zero of an example that is no pair.
        indices: int64[N], position of the record in the source.
        ARRAYS: The names of all these arrays.
    """

    ARRAYS = (
        "lengths",
        "encoder_lengths",
        "trained_tokens",
        "prompt_lengths",
        "prefix_lengths",
        "rejected_starts",
        "indices",
    )

    def __init__(self, paths: Sequence[Path]):
        """Maps the part files of the variant, in their order."""
        parts = []
        for path in paths:
            # The mapping outlives the file, so that thousands of parts need no descriptors.
            with pa.memory_map(str(path)) as file:
                parts.append(pa.ipc.open_file(file).get_batch(0))

        def column(name: str) -> np.ndarray:
            return np.concatenate([part.column(name).to_numpy() for part in parts])

        self._tokens = _ListColumn(parts, "tokens")
        self._weights = _ListColumn(parts, "weights")
        self._encoder_tokens = _ListColumn(parts, "encoder_tokens")
        self.lengths = self._tokens.lengths
        self.encoder_lengths = self._encoder_tokens.lengths
        self.trained_tokens = column("trained_tokens")
        self.prompt_lengths = column("prompt_length")
        self.prefix_lengths = column("prefix_length")
        self.rejected_starts = column("rejected_start")
        self.indices = column("index")
        self._nested = {
            name: [part.column(name) for part in parts]
            for name in ("references", "choices", "choice_tokens")
        }
        sizes = [len(part) for part in parts]
        self._first = np.cumsum([0, *sizes])  # The first example of each part.
        self._part_of = np.repeat(np.arange(len(sizes)), sizes).astype(np.uint32)

    def __len__(self) -> int:
        return len(self.lengths)

    def tokens_and_weights(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """int32[lengths[i]] ids and float32[lengths[i]] loss weights: views of the mapped file."""
        # Both lists have the same bounds. Two calls of `get` would make batches 6% slower.
        part = self._part_of[i]
        start = self._tokens.starts[i]
        stop = start + self.lengths[i]
        return self._tokens.values[part][start:stop], self._weights.values[part][start:stop]

    def sides(self, i: int) -> list[Side]:
        """The sequences of an example: one or, of a pair, the chosen and the rejected one."""
        tokens, weights = self.tokens_and_weights(i)
        start = int(self.rejected_starts[i])
        if not start:
            return [Side("", tokens, weights)]
        return [
            Side("chosen", tokens[:start], weights[:start]),
            Side("rejected", tokens[start:], weights[start:]),
        ]

    def tokens(self, i: int) -> np.ndarray:
        """int32[lengths[i]], a view."""
        return self._tokens.get(self._part_of[i], i)

    def weights(self, i: int) -> np.ndarray:
        """float32[lengths[i]] loss weights, a view."""
        return self._weights.get(self._part_of[i], i)

    def encoder_tokens(self, i: int) -> np.ndarray:
        """int32[encoder_lengths[i]], a view."""
        return self._encoder_tokens.get(self._part_of[i], i)

    def references(self, i: int) -> tuple[str, ...]:
        """The accepted answers."""
        return tuple(self._nested_list("references", i))

    def choices(self, i: int) -> list[tuple[str, list[int]]]:
        """The answers to rank, each as text and ids; empty if the answer is free."""
        texts = self._nested_list("choices", i)
        ids = self._nested_list("choice_tokens", i)
        return list(zip(texts, ids, strict=True))

    def _nested_list(self, name: str, i: int) -> list[Any]:
        part = self._part_of[i]
        return self._nested[name][part][i - int(self._first[part])].as_py()


@dataclasses.dataclass(frozen=True, eq=False)
class TokenStore:
    """A complete store on disk.

    Training reads all variants. Evaluation, previews and reports read variant 0, whose arrays and
    examples the store gives itself.
    """

    path: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: str | Path) -> "TokenStore":
        """Opens a store, whose parts are not looked at yet (`ift_jax.data.store_check`).

        Raises:
            DamagedStore: The folder does not hold a complete store of this version.
        """
        return cls(Path(path), read_manifest(Path(path)))

    @property
    def whole(self) -> "TokenStore":
        """The store on disk that this one is, or is a part of (`ift_jax.data.subset`)."""
        return self

    @property
    def places(self) -> slice | np.ndarray:
        """Where its examples are among those of `whole`, one variant after the other."""
        return slice(None)

    @property
    def holds_pairs(self) -> bool:
        """Whether its examples are pairs of a chosen and a rejected side."""
        return self.manifest["pairs"] > 0

    @property
    def n_variants(self) -> int:
        return self.manifest["variants"]

    @functools.cached_property
    def variants(self) -> list[Variant]:
        """The variants; one may hold more or fewer examples than another."""
        n_shards = self.manifest["shards"]
        variants = []
        for v in range(self.n_variants):
            parts = range(v * n_shards, (v + 1) * n_shards)
            variants.append(Variant([part_path(self.path, part) for part in parts]))
        return variants

    def __len__(self) -> int:
        return len(self.variants[0])

    @property
    def lengths(self) -> np.ndarray:
        """int32[N]; see `Variant`."""
        return self.variants[0].lengths

    @property
    def encoder_lengths(self) -> np.ndarray:
        """int32[N]; see `Variant`."""
        return self.variants[0].encoder_lengths

    @property
    def trained_tokens(self) -> np.ndarray:
        """int32[N]; see `Variant`."""
        return self.variants[0].trained_tokens

    @property
    def prompt_lengths(self) -> np.ndarray:
        """int32[N]; see `Variant`."""
        return self.variants[0].prompt_lengths

    @property
    def prefix_lengths(self) -> np.ndarray:
        """int32[N]; see `Variant`."""
        return self.variants[0].prefix_lengths

    @property
    def indices(self) -> np.ndarray:
        """int64[N]; see `Variant`."""
        return self.variants[0].indices

    def tokens_and_weights(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """int32[lengths[i]] ids and float32[lengths[i]] loss weights: views of the mapped file."""
        return self.variants[0].tokens_and_weights(i)

    def tokens(self, i: int) -> np.ndarray:
        """int32[lengths[i]], a view."""
        return self.variants[0].tokens(i)

    def weights(self, i: int) -> np.ndarray:
        """float32[lengths[i]] loss weights, a view."""
        return self.variants[0].weights(i)

    def encoder_tokens(self, i: int) -> np.ndarray:
        """int32[encoder_lengths[i]], a view."""
        return self.variants[0].encoder_tokens(i)

    def references(self, i: int) -> tuple[str, ...]:
        """The accepted answers."""
        return self.variants[0].references(i)

    def choices(self, i: int) -> list[tuple[str, list[int]]]:
        """The answers to rank, each as text and ids; empty if the answer is free."""
        return self.variants[0].choices(i)
