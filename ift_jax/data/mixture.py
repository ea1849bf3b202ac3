"""A mixture as training sees it: tasks, rates, and their opened stores."""

import dataclasses
import functools

import numpy as np

from ift_jax.data.store import TokenStore


def _column(name: str) -> "functools.cached_property[np.ndarray]":
    return functools.cached_property(
        lambda view: np.concatenate([getattr(r, name) for s in view.stores for r in s.renderings])
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Mixture:
    """T tasks with their stores.

    Attributes:
        tasks: names; `task_ids` of a batch index this list.
        rates: float64[T], SeqIO's mixing rates; only their proportions matter.
        stores: the token store of each task.
        metric_fns: of each task, its metrics as "module:function".
    """

    tasks: list[str]
    rates: np.ndarray
    stores: list[TokenStore]
    metric_fns: list[list[str]]

    @functools.cached_property
    def sizes(self) -> list[list[int]]:
        """Examples of each task in each variant."""
        return [[len(rendering) for rendering in store.renderings] for store in self.stores]

    def flat_ids(
        self, task_ids: np.ndarray, variants: np.ndarray, example_ids: np.ndarray
    ) -> np.ndarray:
        """int64[n]: the place of examples in `lengths`, `encoder_lengths` and `trained_tokens`."""
        sizes_TxV = np.array(self.sizes)
        first_TxV = np.cumsum(sizes_TxV).reshape(sizes_TxV.shape) - sizes_TxV
        return first_TxV[task_ids, variants] + example_ids

    # int32, of every example of every task and variant; see `flat_ids` and `Variant`.
    lengths = _column("lengths")
    encoder_lengths = _column("encoder_lengths")
    trained_tokens = _column("trained_tokens")
