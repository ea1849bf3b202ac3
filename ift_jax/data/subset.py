"""A seeded part of a mixture: some of its tasks, some of the examples of each.

Parts are nested: with one seed, the tasks of a smaller number are among those of a larger one, and
so are the examples of a task. So a curve over the number of tasks or examples adds data to what it
had, and draws nothing anew.
"""

import dataclasses
import functools
from collections.abc import Iterable, Sequence

import numpy as np

from ift_jax.data.mixture import Mixture
from ift_jax.data.randomness import permutation, stable_hash
from ift_jax.data.store import TokenStore, Variant


def chosen_tasks(names: Iterable[str], n: int, seed: int) -> frozenset[str]:
    """Return `n` of some tasks, or all of them for 0; a larger `n` only adds to a smaller one.

    Args:
        names: The tasks.
        n: How many.
        seed: Decides which ones, with their names alone.
    """
    ranked = sorted(names, key=lambda name: (stable_hash("task subset", seed, name), name))
    return frozenset(ranked[:n] if n else ranked)


def with_tasks(mixture: Mixture, kept: frozenset[str]) -> Mixture:
    """Return the mixture of some of its tasks, in their order and at their rates."""
    places = [place for place, name in enumerate(mixture.tasks) if name in kept]
    if len(places) == len(mixture.tasks):
        return mixture
    return Mixture(
        tasks=[mixture.tasks[place] for place in places],
        rates=mixture.rates[places],
        stores=[mixture.stores[place] for place in places],
        metric_fns=[mixture.metric_fns[place] for place in places],
    )


def with_examples(mixture: Mixture, n: int, seed: int) -> Mixture:
    """Return the mixture with `n` examples of each task that has more, at the same rates.

    Args:
        mixture: The mixture.
        n: Examples of each variant of a task: the same records in all variants.
        seed: Decides which ones, with the task's name and the record's place in its source.
    """
    stores = [
        StoreSubset.of(store, n, seed, name) if any(len(v) > n for v in store.variants) else store
        for name, store in zip(mixture.tasks, mixture.stores, strict=True)
    ]
    return dataclasses.replace(mixture, stores=stores)


class VariantSubset(Variant):
    """Some examples of a variant, in its order, with the same arrays and methods."""

    def __init__(self, whole: Variant, chosen: np.ndarray):
        """Takes the examples at `chosen`, int64[n], ascending."""
        self._whole = whole
        self._chosen = chosen
        for name in self.ARRAYS:
            setattr(self, name, getattr(whole, name)[chosen])

    def tokens_and_weights(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        return self._whole.tokens_and_weights(self._chosen[i])

    def tokens(self, i: int) -> np.ndarray:
        return self._whole.tokens(self._chosen[i])

    def weights(self, i: int) -> np.ndarray:
        return self._whole.weights(self._chosen[i])

    def encoder_tokens(self, i: int) -> np.ndarray:
        return self._whole.encoder_tokens(self._chosen[i])

    def references(self, i: int) -> tuple[str, ...]:
        return self._whole.references(self._chosen[i])

    def choices(self, i: int) -> list[tuple[str, list[int]]]:
        return self._whole.choices(self._chosen[i])


@dataclasses.dataclass(frozen=True, eq=False)
class StoreSubset(TokenStore):
    """A store of which only some examples are read; its manifest counts those alone.

    Attributes:
        of_store: The whole store.
        chosen: The places of the examples in each of its variants.
    """

    of_store: TokenStore
    chosen: Sequence[np.ndarray]

    @classmethod
    def of(cls, store: TokenStore, n: int, seed: int, task: str) -> "StoreSubset":
        """Return the part of a store that `with_examples` chooses."""
        n_records = 1 + max(int(variant.indices.max(initial=-1)) for variant in store.variants)
        rank = permutation(n_records, "example subset", seed, task)
        chosen = [
            np.sort(np.argsort(rank[variant.indices], kind="stable")[:n])
            for variant in store.variants
        ]
        kept = list(zip(store.variants, chosen, strict=True))
        counts = {
            "examples": sum(len(places) for _, places in kept),
            "pairs": sum(int((v.rejected_starts[places] > 0).sum()) for v, places in kept),
            "trained_tokens": sum(int(v.trained_tokens[places].sum()) for v, places in kept),
        }
        return cls(store.path, store.manifest | counts, store, chosen)

    @property
    def whole(self) -> TokenStore:
        """The store on disk."""
        return self.of_store

    @property
    def places(self) -> np.ndarray:
        """Where the chosen examples are among all of the store's variants."""
        starts = np.cumsum([0, *map(len, self.of_store.variants)])[:-1]
        return np.concatenate([s + c for s, c in zip(starts, self.chosen, strict=True)])

    @functools.cached_property
    def variants(self) -> list[Variant]:
        """The variants, each with its chosen examples."""
        whole = self.of_store.variants
        return [VariantSubset(v, places) for v, places in zip(whole, self.chosen, strict=True)]
