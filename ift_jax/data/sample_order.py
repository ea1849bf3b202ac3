"""Which example is seen when: systematic sampling in time, as arithmetic.

Let the rates r_t sum to 1. Visit k (k = 0, 1, ...) of task t takes place at time
(k + phi_t) / r_t, with a seeded phase phi_t in [0, 1). So any stretch of time W holds W * r_t
visits of task t, within one. All arithmetic is on integers and exact fractions, so no visit is lost
or doubled at a border, however late in a run.

Visit k belongs to the epoch of its task that k falls into. Within an epoch, visits read the
examples of the task in a seeded permutation, without replacement. Epoch e reads variant e mod V.

An epoch of the mixture is as much time as its tasks have examples. It is divided into equal
windows, whose visits are packed and shuffled together, so a window ends where an epoch ends. No
window is longer than the shortest epoch of a task that does not finish with the mixture. Otherwise
the shuffling could show one of its examples a third time before another one comes at all. The
windows do not depend on how long a run will be.
"""

import functools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from ift_jax.data.randomness import permutation, stable_hash

_PHASE_BITS = 32  # A phase is an integer below 2**32, divided by 2**32.
# Four roundings of float64 separate a product of a time and a rate from the exact number of visits.
_ROUNDING = 4 * np.finfo(np.float64).eps
_ALIGNED = Fraction(1, 10**9)  # Rates that were normalized in floating point are not exact.


class Visits(NamedTuple):
    """n visits of examples."""

    task_ids: np.ndarray  # int32[n].
    example_ids: np.ndarray  # int64[n], the place of each example in its variant.
    epochs: np.ndarray  # int32[n], the epoch of the task that each visit belongs to.


class SampleOrder:
    """The order in which the examples of a mixture are visited, endless or with an end.

    Attributes:
        n_examples: Visits of the first epoch of the mixture.
        end: The time at which the order ends, which is the number of visits until then; None if
            there is no end.
    """

    def __init__(
        self,
        sizes: Sequence[int] | Sequence[Sequence[int]],
        rates: Sequence[float] | np.ndarray,
        seed: int,
        task_names: Sequence[str],
        window: int,
        epochs: float | None = None,
    ):
        """Defines the order; costs nothing yet.

        Args:
            sizes: examples of each task, or of each variant of each task.
            rates: float[T], not negative; only their proportions matter, and those exactly.
            seed: with the names of the tasks (not their positions) decides permutations and phases.
            task_names: T names.
            window: the most visits that are expected per window; each task is within one of its
                share.
            epochs: epochs of the mixture until the end; None for an endless order. It decides
                nothing but `end` and `n_windows`.

        Raises:
            ValueError: no rate is positive, one is negative, or a task that should be visited has
                no example.
        """
        self.sizes = [[int(n) for n in np.atleast_1d(np.asarray(size))] for size in sizes]
        fractions = [Fraction(float(rate)) for rate in rates]
        if min(fractions) < 0 or not any(fractions):
            raise ValueError(f"rates must not be negative, and one positive: {rates}")
        for rate, of_variants in zip(fractions, self.sizes, strict=True):
            if rate and not all(of_variants):
                raise ValueError("a task with a positive rate has no example")
        # The rates as integers: r_t = weights[t] / total.
        common = math.lcm(*(rate.denominator for rate in fractions))
        weights = [int(rate * common) for rate in fractions]
        shrink = math.gcd(*weights)
        self._weights = [weight // shrink for weight in weights]
        self._total = sum(self._weights)
        self._phases = [stable_hash("phase", seed, name, bits=_PHASE_BITS) for name in task_names]
        self._phases_T = np.array(self._phases) / 2**_PHASE_BITS
        self._seed = seed
        self._names = list(task_names)
        # Epoch e of the mixture takes the time _epoch_times[e mod V], in _epoch_windows[e mod V]
        # windows.
        self._epoch_times = [sum(sizes) for sizes in zip(*self._visited_sizes(), strict=True)]
        longest = min([Fraction(window), *self._shortest_unaligned_epochs()])
        self._epoch_windows = [math.ceil(time / longest) for time in self._epoch_times]
        self.n_examples = self._epoch_times[0]
        self.end = None if epochs is None else self._epoch_start(epochs)
        self._permutation = functools.lru_cache(maxsize=4 * len(self._names))(self._permute)
        self._window_start = functools.lru_cache(maxsize=4)(self._compute_window_start)

    @property
    def n_windows(self) -> int | None:
        """Windows until the end, of which the last may reach beyond it; None if there is no end."""
        if self.end is None:
            return None
        cycles, time = divmod(self.end, sum(self._epoch_times))
        n_windows = cycles * sum(self._epoch_windows)
        for epoch_time, epoch_windows in zip(self._epoch_times, self._epoch_windows, strict=True):
            inside = min(time, Fraction(epoch_time))
            n_windows += math.ceil(inside * epoch_windows / epoch_time)
            time -= inside
        return n_windows

    def windows_before(self, epoch: int) -> int:
        """The number of windows before an epoch of the mixture."""
        cycles, variant = divmod(epoch, len(self._epoch_windows))
        return cycles * sum(self._epoch_windows) + sum(self._epoch_windows[:variant])

    def window_start(self, window: int) -> Fraction:
        """The time at which a window starts, in visits of the mixture."""
        return Fraction(*self._window_start(window))

    @functools.cached_property
    def shares(self) -> np.ndarray:
        """float64[T]: the share of the visits that each task should have."""
        return np.array([weight / self._total for weight in self._weights])

    def visits_before(self, task: int, window: int) -> int:
        """The number of visits of a task before a window: ceil(time * r - phi), exactly."""
        time, denominator = self._window_start(window)
        scale = self._total * denominator
        numerator = (time * self._weights[task]) << _PHASE_BITS
        return -(-(numerator - self._phases[task] * scale) // (scale << _PHASE_BITS))

    def visits(self, task: int, window: int) -> tuple[int, int]:
        """The visits of a task in a window, as (first, one past the last)."""
        return self.visits_before(task, window), self.visits_before(task, window + 1)

    def window(self, window: int) -> Visits:
        """The visits of one window, task after task."""
        return self.windows(window, window + 1)[0]

    def windows(self, first: int, stop: int) -> tuple[Visits, np.ndarray]:
        """The visits of some windows, task after task, and of each task window after window.

        Args:
            first: The first window.
            stop: One past the last window.

        Returns:
            n visits, and int64[n]: the window of each visit, counted from `first`.
        """
        before_TxW = self._visits_before_all(first, stop)
        pieces: list[np.ndarray] = []
        runs: list[tuple[int, int, int]] = []  # (task, epoch, visits)
        visited = np.flatnonzero(before_TxW[:, -1] > before_TxW[:, 0])
        for task in visited.tolist():
            sizes = self.sizes[task]
            visit, end = int(before_TxW[task, 0]), int(before_TxW[task, -1])
            cycle = sum(sizes)  # As many epochs as there are variants.
            while visit < end:
                full_cycles, place = divmod(visit, cycle)
                variant = 0
                while place >= sizes[variant]:
                    place -= sizes[variant]
                    variant += 1
                epoch = full_cycles * len(sizes) + variant
                count = min(end - visit, sizes[variant] - place)
                pieces.append(self._permutation(task, epoch)[place : place + count])
                runs.append((task, epoch, count))
                visit += count
        task_of_run, epoch_of_run, counts = np.array(runs, np.int64).reshape(-1, 3).T
        visits = Visits(
            task_ids=np.repeat(task_of_run.astype(np.int32), counts),
            example_ids=np.concatenate([np.zeros(0, np.int64), *pieces]),
            epochs=np.repeat(epoch_of_run.astype(np.int32), counts),
        )
        counts_TxW = np.diff(before_TxW[visited])
        windows = np.tile(np.arange(stop - first), len(visited))
        return visits, np.repeat(windows, counts_TxW.ravel())

    def _visits_before_all(self, first: int, stop: int) -> np.ndarray:
        """int64[T, stop - first + 1]: `visits_before` of each task, up to the window `stop`.

        Numbers that float64 leaves in doubt are computed exactly; with thousands of tasks the exact
        arithmetic of all of them took most of the time of planning.
        """
        times_W = np.array([n / d for n, d in map(self._window_start, range(first, stop + 1))])
        visits_TxW = self.shares[:, None] * times_W - self._phases_T[:, None]
        before_TxW = np.ceil(visits_TxW).astype(np.int64)
        in_doubt = np.abs(visits_TxW - np.rint(visits_TxW)) <= _ROUNDING * (visits_TxW + 1)
        for task, window in np.argwhere(in_doubt).tolist():
            before_TxW[task, window] = self.visits_before(task, first + window)
        return before_TxW

    def _permute(self, task: int, epoch: int) -> np.ndarray:
        n = self.sizes[task][epoch % len(self.sizes[task])]
        return permutation(n, "epoch", self._seed, self._names[task], epoch)

    def _visited_sizes(self) -> list[list[int]]:
        """The sizes of the tasks with a positive rate."""
        return [sizes for sizes, weight in zip(self.sizes, self._weights, strict=True) if weight]

    def _shortest_unaligned_epochs(self) -> list[Fraction]:
        """The time of the shortest epoch of each task that does not finish with the mixture."""
        times: list[Fraction] = []
        for sizes, weight in zip(self.sizes, self._weights, strict=True):
            if not weight:
                continue
            own = [Fraction(size * self._total, weight) for size in sizes]
            aligned = all(
                abs(time - of_mixture) <= _ALIGNED * of_mixture
                for time, of_mixture in zip(own, self._epoch_times, strict=True)
            )
            if not aligned:
                times.append(min(own))
        return times

    def _epoch_start(self, epoch: float) -> Fraction:
        """The time at which an epoch of the mixture starts, or a fraction of one is over."""
        whole = math.floor(epoch)
        cycles, variant = divmod(whole, len(self._epoch_times))
        started = cycles * sum(self._epoch_times) + sum(self._epoch_times[:variant])
        return started + (Fraction(epoch) - whole) * self._epoch_times[variant]

    def _compute_window_start(self, window: int) -> tuple[int, int]:
        """The time at which a window starts, as a numerator and a denominator."""
        cycles, place = divmod(window, sum(self._epoch_windows))
        variant = 0
        while place >= self._epoch_windows[variant]:
            place -= self._epoch_windows[variant]
            variant += 1
        n_windows = self._epoch_windows[variant]
        started = cycles * sum(self._epoch_times) + sum(self._epoch_times[:variant])
        return started * n_windows + place * self._epoch_times[variant], n_windows
