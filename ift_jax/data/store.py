"""The token store: Arrow IPC part files, read by memory map, and a manifest.

A store is one folder for one split of one task, named `<task>-<split>-<key>` by a hash of all
that determines it. Part `v * shards + k` is shard k of the source in rendering (variant) v, as
one record batch: a column of a part is one contiguous array. `manifest.json` is written last, and
the folder gets its name only then: a folder under this name is a whole store.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ift_jax.errors import UserError
from ift_jax.io.files import read_json

FORMAT_VERSION = 2
MANIFEST = "manifest.json"


def part_path(folder: Path, part: int) -> Path:
    """The file of a part; its report is beside it, with the suffix `.json`."""
    return folder / f"part-{part:05d}.arrow"


class Variant:
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
    def renderings(self) -> list[Variant]:
        """The variants; one may hold more or fewer examples than another."""
        n, variants = self.manifest["shards"], range(self.n_variants)
        return [Variant([part_path(self.path, v * n + k) for k in range(n)]) for v in variants]

    def variant(self, v: int) -> Variant:
        """The examples as rendered for variant v."""
        return self.renderings[v]

    def __len__(self) -> int:
        return len(self.renderings[0])

    def __getattr__(self, name: str) -> Any:
        # lengths, tokens(i), references(i), ...: those of variant 0.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.renderings[0], name)
