"""What the stores and the planned run of a mixture hold of each task, in numbers."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ift_jax.data.batches import BatchPlan
from ift_jax.data.mixture import Mixture


class TaskCounts(NamedTuple):
    """What the store of a task holds.

    Attributes:
        task: The task's name.
        cluster: The cluster that its source names, or "".
        in_source: The examples of its source; None if it cannot tell.
        examples: The examples of the store, in one variant.
        tokens: All tokens, those of the encoder included.
        trained_tokens: Tokens whose loss weight is not zero.
        lengths: int32[examples], the tokens of each example without those of the encoder.
        encoder_lengths: int32[examples], the encoder's tokens.
        truncated: Examples that were truncated.
        control_strings: Control strings inside texts, encoded as ordinary text.
        dropped: Records that are not in the store, by reason.
    """

    task: str
    cluster: str
    in_source: int | None
    examples: int
    tokens: int
    trained_tokens: int
    lengths: np.ndarray
    encoder_lengths: np.ndarray
    truncated: int
    control_strings: int
    dropped: dict[str, int]

    @property
    def n_dropped(self) -> int:
        """The records that are not in the store."""
        return sum(self.dropped.values())

    @property
    def trained_share(self) -> float:
        """The share of its tokens that is trained."""
        return self.trained_tokens / max(self.tokens, 1)

    @property
    def dropped_share(self) -> float:
        """The share of its records that was dropped."""
        return self.n_dropped / max(self.n_dropped + self.examples, 1)


class TaskShares(NamedTuple):
    """What the planned run sees of a task; the shares of tokens are expected ones.

    Attributes:
        rate: Its mixing rate.
        requested: The share of examples that the rate asks for.
        examples: The share of the run's examples.
        tokens: The share of the run's tokens.
        trained_tokens: The share of the run's trained tokens.
        epochs: How often its examples are seen.
    """

    rate: float
    requested: float
    examples: float
    tokens: float
    trained_tokens: float
    epochs: float


def task_counts(mixture: Mixture, tasks: Sequence[str]) -> list[TaskCounts]:
    """Return the counts of some tasks of a mixture, in their order."""
    places = {task: place for place, task in enumerate(mixture.tasks)}
    return [_counts(task, mixture, places[task]) for task in tasks]


def _counts(task: str, mixture: Mixture, place: int) -> TaskCounts:
    store = mixture.stores[place]
    manifest = store.manifest
    return TaskCounts(
        task=task,
        cluster=manifest.get("cluster", ""),
        in_source=manifest["input_examples"],
        examples=len(store),
        tokens=manifest["tokens"] + manifest["encoder_tokens"],
        trained_tokens=manifest["trained_tokens"],
        lengths=store.lengths,
        encoder_lengths=store.encoder_lengths,
        truncated=manifest["truncated_examples"],
        control_strings=manifest["control_strings"],
        dropped=manifest["dropped"],
    )


def task_shares(plan: BatchPlan, mixture: Mixture) -> dict[str, TaskShares]:
    """Return what a run sees of each task.

    The share of tokens is a task's visits times the mean of its examples.
    """
    stores = mixture.stores
    mean_tokens = np.array([s.lengths.mean() + s.encoder_lengths.mean() for s in stores])
    mean_trained = np.array([store.trained_tokens.mean() for store in stores])
    tokens = plan.task_examples * mean_tokens
    trained = plan.task_examples * mean_trained
    planned = plan.summary()["tasks"]
    return {
        task: TaskShares(
            rate=float(mixture.rates[t]),
            requested=planned[task]["requested_share"],
            examples=planned[task]["realized_share"],
            tokens=float(tokens[t] / tokens.sum()),
            trained_tokens=float(trained[t] / trained.sum()),
            epochs=planned[task]["epochs"],
        )
        for t, task in enumerate(mixture.tasks)
    }
