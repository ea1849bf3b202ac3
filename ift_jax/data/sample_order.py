"""Which example is seen when: systematic sampling in time, as arithmetic.

Let the rates r_t sum to 1. Task t's k-th visit (k = 0, 1, ...) takes place at time
(k + phi_t) / r_t, with a seeded phase phi_t in [0, 1); so any stretch of time W holds W * r_t
visits of t, within one. Window w is the time [w*W, (w+1)*W). Everything is integer arithmetic:
rates are exact fractions, so no visit is lost or doubled at a border, at any step.

Visit k belongs to the epoch of its task that k falls into, and reads one example of a seeded
permutation of that epoch: without replacement. Epoch e reads variant e mod V.
"""

import functools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from ift_jax.data.randomness import permutation, stable_hash

_PHASE_BITS = 32


class SampleOrder:
    """The order of the examples of a mixture: endless, or of `epochs * n_examples` visits.

    `sizes` are the examples of each task, or of each of its variants. Of the `rates` (float[T],
    not negative) only the proportions matter, and those exactly. `seed` and `task_names` (not
    their positions) give permutations and phases. A `window` is W examples in expectation, each
    task within one.
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
        self.sizes = [[int(n) for n in np.atleast_1d(np.asarray(s))] for s in sizes]
        fractions = [Fraction(float(r)) for r in rates]
        if min(fractions) < 0 or not any(fractions):
            raise ValueError(f"rates must not be negative, and one positive: {rates}")
        if any(r and not all(s) for r, s in zip(fractions, self.sizes, strict=True)):
            raise ValueError("a task with a positive rate has no example")
        common = math.lcm(*(r.denominator for r in fractions))
        weights = [int(r * common) for r in fractions]
        shrink = math.gcd(*weights)
        self._weights = [q // shrink for q in weights]  # r_t = weights[t] / total.
        self._total = sum(self._weights)
        # phi_t = phases[t] / 2**32.
        self._phases = [stable_hash("phase", seed, name, bits=_PHASE_BITS) for name in task_names]
        self._seed, self._names, self.window_size = seed, list(task_names), window
        # An epoch of the mixture is as many visits as its tasks have examples (in variant 0).
        self.n_examples = sum(s[0] for s, q in zip(self.sizes, self._weights, strict=True) if q)
        self.end = None if epochs is None else Fraction(epochs) * self.n_examples
        self._permutation = functools.lru_cache(maxsize=4 * len(self._names))(self._permute)

    @property
    def n_windows(self) -> int | None:
        """Windows until the end; None if there is none."""
        return None if self.end is None else math.ceil(self.end / self.window_size)

    @property
    def shares(self) -> np.ndarray:
        """float64[T]: the share of the visits that each task was promised."""
        return np.array([q / self._total for q in self._weights])

    def visits_before(self, task: int, window: int) -> int:
        """How many visits of a task lie before a window: ceil(its time * r - phi), exactly."""
        time = Fraction(window * self.window_size)
        if self.end is not None:
            time = min(time, self.end)
        scale = self._total * time.denominator
        numerator = (time.numerator * self._weights[task]) << _PHASE_BITS
        return -(-(numerator - self._phases[task] * scale) // (scale << _PHASE_BITS))

    def visits(self, task: int, window: int) -> tuple[int, int]:
        """The visits (first, behind the last) of a task in a window."""
        return self.visits_before(task, window), self.visits_before(task, window + 1)

    def window(self, window: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The visits of one window, task after task.

        Returns:
            task_ids int32[n], example_ids int64[n], epochs int32[n]; n is about `window_size`.
        """
        pieces: list[np.ndarray] = []
        runs: list[tuple[int, int, int]] = []  # (task, epoch, visits)
        for task, sizes in enumerate(self.sizes):
            visit, stop = self.visits(task, window)
            cycle = sum(sizes)  # As many epochs as there are variants.
            while visit < stop:
                full_cycles, place = divmod(visit, cycle)
                variant = 0
                while place >= sizes[variant]:
                    place, variant = place - sizes[variant], variant + 1
                epoch = full_cycles * len(sizes) + variant
                count = min(stop - visit, sizes[variant] - place)
                pieces.append(self._permutation(task, epoch)[place : place + count])
                runs.append((task, epoch, count))
                visit += count
        tasks, epochs, counts = np.array(runs, np.int64).reshape(-1, 3).T
        return (
            np.repeat(tasks.astype(np.int32), counts),
            np.concatenate([np.zeros(0, np.int64), *pieces]),
            np.repeat(epochs.astype(np.int32), counts),
        )

    def _permute(self, task: int, epoch: int) -> np.ndarray:
        n = self.sizes[task][epoch % len(self.sizes[task])]
        return permutation(n, "epoch", self._seed, self._names[task], epoch)
