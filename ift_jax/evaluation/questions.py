"""Which examples of a mixture are answered: the first ones of each task, or a seeded subset."""

import dataclasses
from collections.abc import Callable

import numpy as np

from ift_jax.data.mixture import Mixture
from ift_jax.data.randomness import stable_hash
from ift_jax.data.store import TokenStore
from ift_jax.evaluation.text_generator import TextGenerator

# Returns the indices, in its store, of the examples of a task that are answered.
Choose = Callable[[str, TokenStore], list[int]]


@dataclasses.dataclass(frozen=True)
class Question:
    """An example to answer."""

    task: str
    store: TokenStore
    index: int  # The index of the example in its store.
    prompt: list[int]
    choices: list[tuple[str, list[int]]]  # Text and ids of each; empty if the answer is free.


def ask(text_generator: TextGenerator, mixture: Mixture, choose: Choose) -> list[Question]:
    """Return the chosen examples of every task, in the order of the tasks."""
    return [
        Question(
            task, store, index, text_generator.prompt(store, index), list(store.choices(index))
        )
        for task, store in zip(mixture.tasks, mixture.stores, strict=True)
        for index in choose(task, store)
    ]


def first(n: int) -> Choose:
    """Choose the first `n` examples of each task."""
    return lambda task, store: list(range(min(n, len(store))))


def seeded(n: int, seed: int) -> Choose:
    """Choose `n` examples of each task, in the order of the store.

    Whether an example is chosen depends on (seed, task, position of its record in the source)
    alone, as far as the other examples leave it: of a larger store with the same records, or for
    a larger `n`, the subset has the same examples and more.
    """

    def choose(task: str, store: TokenStore) -> list[int]:
        keys_N = _hashes(np.asarray(store.indices), stable_hash("evaluation", seed, task))
        return np.sort(np.argsort(keys_N, kind="stable")[:n]).tolist()

    return choose


def _hashes(indices_N: np.ndarray, key: int) -> np.ndarray:
    """Return uint64[N]: SplitMix64 of each index, which is the same on every host and version."""
    x_N = (indices_N.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x_N += np.uint64(key)
    x_N = (x_N ^ (x_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x_N = (x_N ^ (x_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x_N ^ (x_N >> np.uint64(31))
