"""A mixture as training sees it: tasks, rates, and their opened stores."""

import dataclasses
import functools

import numpy as np

from ift_jax.data.store import TokenStore, Variant


@dataclasses.dataclass(frozen=True, eq=False)
class Mixture:
    """T tasks with their stores.

    The arrays `lengths`, `encoder_lengths` and `trained_tokens` hold the examples of every variant
    of every task, one after another; `flat_ids` gives the index of an example in them.

    Attributes:
        tasks: Names; `task_ids` of a batch index this list.
        rates: float64[T], SeqIO's mixing rates; only their proportions matter.
        stores: The token store of each task.
        metric_fns: The metrics of each task, as `ift_jax.metrics.metric_names` names them.
        known_log_probs: What `reference_log_probs` is, once it has been computed.
    """

    tasks: list[str]
    rates: np.ndarray
    stores: list[TokenStore]
    metric_fns: list[list[str]]
    known_log_probs: np.ndarray | None = None

    @functools.cached_property
    def sizes(self) -> list[list[int]]:
        """The number of examples in each variant of each task."""
        return [[len(variant) for variant in store.variants] for store in self.stores]

    def flat_ids(
        self, task_ids: np.ndarray, variants: np.ndarray, example_ids: np.ndarray
    ) -> np.ndarray:
        """int64[n]: the indices of n examples in `lengths` and the arrays like it.

        Args:
            task_ids: Int[n], indices of `tasks`.
            variants: Int[n], the variant of each example.
            example_ids: Int[n], the index of each example in its variant.
        """
        return self._first_TxV[task_ids, variants] + example_ids

    @functools.cached_property
    def _first_TxV(self) -> np.ndarray:
        """int64[T, V]: the index of the first example of each variant of each task."""
        sizes_TxV = np.array(self.sizes)
        return np.cumsum(sizes_TxV).reshape(sizes_TxV.shape) - sizes_TxV

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """int32, tokens of each example."""
        return np.concatenate([variant.lengths for variant in self._variants()])

    @functools.cached_property
    def encoder_lengths(self) -> np.ndarray:
        """int32, encoder tokens of each example."""
        return np.concatenate([variant.encoder_lengths for variant in self._variants()])

    @functools.cached_property
    def trained_tokens(self) -> np.ndarray:
        """int32, tokens of each example whose loss weight is not zero."""
        return np.concatenate([variant.trained_tokens for variant in self._variants()])

    @functools.cached_property
    def rejected_starts(self) -> np.ndarray:
        """int32, tokens of the chosen side of each pair; 0 of an example that is none."""
        return np.concatenate([variant.rejected_starts for variant in self._variants()])

    @property
    def sequence_lengths(self) -> np.ndarray:
        """int32, tokens of each sequence: an example, or a side of a pair."""
        if not self.holds_pairs:
            return self.lengths
        return np.concatenate([self.rejected_starts, self.lengths - self.rejected_starts])

    @functools.cached_property
    def reference_log_probs(self) -> np.ndarray:
        """float32[n, 2]: the log-probability of each pair's chosen and rejected side.

        It is that of the trained tokens under the reference model (`ift_jax.training.references`);
        NaN where it is not known.
        """
        if self.known_log_probs is not None:
            return self.known_log_probs
        return np.full((len(self.lengths), 2), np.nan, np.float32)

    @functools.cached_property
    def holds_pairs(self) -> bool:
        """Whether the examples of its stores are pairs."""
        return any(store.holds_pairs for store in self.stores)

    def _variants(self) -> list[Variant]:
        return [variant for store in self.stores for variant in store.variants]
