"""Global batches as a pure function of (stores, config, seed, step)."""

import copy
import functools
import math
from typing import Any, NamedTuple, Self

import numpy as np

from ift_jax.config.schema import Config, DataConfig, TrainConfig
from ift_jax.data.mixture import Mixture
from ift_jax.data.packed_windows import RowExamples, WindowPacker, WindowTotals
from ift_jax.data.pairs import REFERENCE
from ift_jax.data.row_batch import Batch, lay_out, prefixed
from ift_jax.data.sample_order import SampleOrder
from ift_jax.errors import UserError

LARGEST_RUN = 2**32  # Rows or examples; planning takes about a minute for each 100 million.


class ArraySpec(NamedTuple):
    """Shape and type of an array that is not made yet."""

    shape: tuple[int, ...]
    dtype: np.dtype


def _check_size(train: TrainConfig, n_examples: int) -> None:
    """Raise a UserError for a run whose plan would take hours and fill the memory."""
    if train.steps > 0:
        fields, planned = f"steps={train.steps} x batch_size={train.batch_size}", "rows"
        size: float = train.steps * train.batch_size
    else:
        fields, planned = f"epochs={train.epochs:g}", "examples"
        size = train.epochs * n_examples
    if size > LARGEST_RUN:
        raise UserError(
            f"config.train: {fields} are {size:.3g} {planned}; expected at most {LARGEST_RUN:.3g}"
        )


class BatchPlan:
    """The batches of a run with a number of steps, or of epochs.

    Rows are numbered through all windows; step s holds rows s * B to (s + 1) * B. The number of
    rows in each window is planned at the start, their content when it is asked for, so the first
    batch costs the same at any step.

    An epoch is as many examples as the tasks have; at rates proportional to the tasks' sizes, it is
    each of them once. In a run of epochs, the last batch of every epoch is filled up with empty
    rows, and a run that ends inside an epoch ends with a whole batch. So no batch depends on where
    the run ends, and a finished run can continue for more epochs. In a run of steps, the rows of
    the next epoch follow at once.

    Attributes:
        mixture: The tasks and their stores.
        batch_size: B, rows of the global batch.
        order: The order of the examples.
        capacities: Tokens per row: (max_length,) or (inputs_length, targets_length).
        n_steps: Steps of the run.
        n_rows, n_examples, n_tokens, n_encoder_tokens, n_trained_tokens: what the planned windows
            hold, without empty rows. The last window counts as a whole.
        last_window_share: The share of the last window's rows that the run reads.
        read: What the run reads: the windows before the last one, and that share of the last one,
            whose rows hold about the same.
        fill: The share of the planned rows' positions that hold a token.
        steps_per_epoch: Batches that an epoch of the mixture takes.
    """

    def __init__(
        self,
        mixture: Mixture,
        data: DataConfig,
        architecture: str,
        batch_size: int,
        seed: int,
        *,
        steps: int = 0,
        epochs: float = 0.0,
        bidirectional_prefix: bool = False,
    ):
        """Plans a run; exactly one of `steps` and `epochs` decides its length.

        Args:
            mixture: The tasks and their stores.
            data: Row lengths, packing, window, and the folder in which the plan is kept.
            architecture: "decoder" or "encoder_decoder".
            batch_size: Rows of the global batch.
            seed: Decides the order.
            steps: Steps of the run, if positive.
            epochs: Epochs of the mixture otherwise.
            bidirectional_prefix: Whether a decoder's batches carry `prefix_mask`.
        """
        if not (steps > 0 or epochs > 0):
            raise ValueError(f"steps={steps}, epochs={epochs}: one must be positive")
        self.mixture = mixture
        self.batch_size = batch_size
        self._encoder_decoder = architecture == "encoder_decoder"
        self._bidirectional_prefix = bidirectional_prefix and not self._encoder_decoder
        self.order = SampleOrder(
            mixture.sizes,
            mixture.rates,
            seed,
            mixture.tasks,
            data.window,
            epochs=None if steps > 0 else epochs,
        )
        self._packer = WindowPacker(mixture, data, architecture, seed, self.order)
        self.capacities = self._packer.capacities

        if steps > 0:
            totals_Wx5 = self._packer.all_totals(n_rows=steps * batch_size, n_windows=None)
            self._first_rows = np.concatenate([[0], np.cumsum(totals_Wx5[:, 0])])
            self.n_steps = steps
        else:
            n_windows = self.order.windows_before(math.ceil(epochs))
            totals_Wx5 = self._packer.all_totals(n_rows=None, n_windows=n_windows)
            self._first_rows = self._epochs_in_whole_batches(totals_Wx5[:, 0])
            self.n_steps = self._steps_until_end(totals_Wx5[:, 0])
        # Windows that are planned because their epoch was begun, but not read, do not count.
        n_read = int(np.searchsorted(self._first_rows[:-1], self.n_steps * batch_size))
        self._rows_of_windows = totals_Wx5[:, 0]
        totals = WindowTotals(*totals_Wx5[:n_read].sum(axis=0).tolist())
        self._n_read_windows = n_read
        last_rows = int(totals_Wx5[n_read - 1, 0]) if n_read else 0
        last_read = self.n_steps * batch_size - int(self._first_rows[n_read - 1]) if n_read else 0
        self.last_window_share = min(1.0, last_read / max(last_rows, 1))
        before_last = totals_Wx5[: n_read - 1].sum(axis=0) if n_read else np.zeros(5)
        last = totals_Wx5[n_read - 1] if n_read else np.zeros(5)
        read = np.rint(before_last + self.last_window_share * last).astype(int)
        self.read = WindowTotals(*read.tolist())
        self.n_rows = totals.rows
        self.n_examples = totals.examples
        self.n_tokens = totals.tokens
        self.n_encoder_tokens = totals.encoder_tokens
        self.n_trained_tokens = totals.trained_tokens

        positions = max(self.n_rows * sum(self.capacities), 1)
        self.fill = (self.n_tokens + self.n_encoder_tokens) / positions
        if steps > 0:
            rows_per_epoch = self.n_rows * self.order.n_examples / max(self.n_examples, 1)
        else:
            rows_per_epoch = int(self._first_rows[-1]) / math.ceil(epochs)
        self.steps_per_epoch = rows_per_epoch / batch_size

    def _epochs_in_whole_batches(self, rows_W: np.ndarray) -> np.ndarray:
        """int64[W + 1]: the first row of each window, if every epoch begins with a new batch."""
        first_rows = [0]
        epoch = 0
        while len(first_rows) <= len(rows_W):
            start, stop = self.order.windows_before(epoch), self.order.windows_before(epoch + 1)
            before = first_rows[-1] + np.cumsum(rows_W[start:stop])
            before[-1] += -before[-1] % self.batch_size
            first_rows += before.tolist()
            epoch += 1
        return np.array(first_rows, np.int64)

    def _steps_until_end(self, rows_W: np.ndarray) -> int:
        """The steps of a run of epochs: whole batches, of which the last holds the end."""
        order = self.order
        assert order.end is not None and order.n_windows is not None
        last = order.n_windows - 1
        start = order.window_start(last)
        share = (order.end - start) / (order.window_start(last + 1) - start)
        n_rows = int(self._first_rows[last]) + math.ceil(int(rows_W[last]) * share)
        return -(-n_rows // self.batch_size)

    def depends_on_unit(self, n_steps: int) -> bool:
        """Whether the first batches of a run of steps and of a run of epochs are different ones.

        They are the same until the first epoch ends inside a batch, which a run of epochs fills up
        with empty rows.

        Args:
            n_steps: How many batches to look at, at most those of this run.
        """
        rows_W = self._rows_of_windows
        without_gaps = np.concatenate([[0], np.cumsum(rows_W)])
        in_whole_batches = self._epochs_in_whole_batches(rows_W)
        differs = without_gaps[:-1] != in_whole_batches[:-1]
        is_read = without_gaps[:-1] < n_steps * self.batch_size
        return bool((differs & is_read).any())

    @classmethod
    def from_config(cls, config: Config, mixture: Mixture) -> "BatchPlan":
        """The training batches of a run.

        Raises:
            UserError: The run has more rows or examples than can be planned.
        """
        _check_size(config.train, sum(sizes[0] for sizes in mixture.sizes))
        return cls(
            mixture,
            config.data,
            config.model.architecture,
            config.train.batch_size,
            config.seed,
            steps=config.train.steps,
            epochs=config.train.epochs,
            bidirectional_prefix=config.format.bidirectional_prefix,
        )

    def with_mixture(self, mixture: Mixture) -> Self:
        """Return the same plan for a mixture of the same examples."""
        other = copy.copy(self)
        other.mixture = mixture
        return other

    @functools.cached_property
    def task_examples(self) -> np.ndarray:
        """int64[T]: how often the planned windows visit each task."""
        return self._visits_before(self._n_read_windows)

    def _visits_before(self, n_windows: int) -> np.ndarray:
        """int64[T]: how often the first windows visit each task."""
        tasks = range(len(self.mixture.tasks))
        return np.array([self.order.visits_before(task, n_windows) for task in tasks])

    def summary(self) -> dict[str, Any]:
        """Steps, fill, and what the planned run shows of each task; its shares are of windows."""
        seen = self.task_examples.tolist()
        before_last = self._visits_before(max(self._n_read_windows - 1, 0))
        of_last = self.task_examples - before_last
        read = (before_last + self.last_window_share * of_last).tolist()
        tasks = {
            name: {
                "examples_seen": round(read[i]),
                "epochs": read[i] / self.mixture.sizes[i][0],
                "requested_share": float(self.order.shares[i]),
                "realized_share": seen[i] / max(sum(seen), 1),
            }
            for i, name in enumerate(self.mixture.tasks)
        }
        return {"steps": self.n_steps, "fill": self.fill, "tasks": tasks}

    def examples(self, step: int, rows: slice = slice(None)) -> RowExamples:
        """The examples in a batch, or in some contiguous rows of it.

        Raises:
            IndexError: The run has no such step.
        """
        if not 0 <= step < self.n_steps:
            raise IndexError(f"step {step} of a run of {self.n_steps}")
        first_row, stop_row, _ = rows.indices(self.batch_size)
        start = step * self.batch_size + first_row
        stop = step * self.batch_size + stop_row
        pieces: list[RowExamples] = []
        at = start
        while at < stop:
            window = int(np.searchsorted(self._first_rows, at, side="right")) - 1
            window_start, next_start = self._first_rows[window : window + 2].tolist()
            window_stop = window_start + int(self._rows_of_windows[window])
            if at < window_stop:
                until = min(stop, window_stop)
                pieces.append(self._packer.rows(window, at - window_start, until - window_start))
            else:
                until = min(stop, next_start)
                pieces.append(_empty_rows(until - at))
            at = until
        if not pieces:
            return _empty_rows(0)
        return RowExamples(*(np.concatenate(column) for column in zip(*pieces, strict=True)))

    def batch(self, step: int, rows: slice = slice(None)) -> Batch:
        """The batch of a step, or some contiguous rows of it.

        Returns:
            For a decoder, arrays of shape B x L unless said otherwise: `tokens` int32; `targets`
            int32, the next token of the same example, else 0; `loss_weights` float32, the weight
            of the target; `segment_ids` int32, from 1 in a row and 0 in padding; `positions`
            int32, from 0 in each example; `task_ids` int32, -1 in padding; `row_ids` int32[B], the
            index of each row in the global batch; with a bidirectional prefix `prefix_mask` bool,
            true before an example's first trained token. Of pairs, whose sides are segments of
            their own, `reference_log_probs` float32: the log-probability of each segment under the
            reference model at its first token, 0 elsewhere.

            For an encoder-decoder: `encoder_tokens`, `encoder_segment_ids`, `encoder_positions`
            (B x L_encoder); `decoder_tokens`, the targets shifted right in each example with 0
            first, `decoder_targets`, `decoder_loss_weights`, `decoder_segment_ids`,
            `decoder_positions`, `decoder_task_ids` (B x L_decoder); `row_ids`. Segment k of the
            encoder belongs to segment k of the decoder; it may be empty.
        """
        return lay_out(
            self.mixture,
            self.examples(step, rows),
            np.arange(*rows.indices(self.batch_size), dtype=np.int32),
            self.capacities,
            bidirectional_prefix=self._bidirectional_prefix,
        )


def _empty_rows(n_rows: int) -> RowExamples:
    nothing = np.zeros(0, np.int32)
    return RowExamples(
        counts=np.zeros(n_rows, np.int64),
        task_ids=nothing,
        variants=nothing,
        example_ids=np.zeros(0, np.int64),
    )


def batch_arrays(config: Config) -> dict[str, ArraySpec]:
    """The arrays that `BatchPlan.batch` gives in a run, known without its data."""
    n_rows = config.train.batch_size
    lengths = config.row_lengths
    int32: np.dtype = np.dtype(np.int32)
    has_encoder = config.model.architecture == "encoder_decoder"

    decoder_dtypes = dict.fromkeys(
        ("tokens", "segment_ids", "positions", "targets", "task_ids"), int32
    )
    decoder_dtypes["loss_weights"] = np.dtype(np.float32)
    if config.preference.trains_pairs:
        decoder_dtypes[REFERENCE] = np.dtype(np.float32)
    if config.format.bidirectional_prefix and not has_encoder:
        decoder_dtypes["prefix_mask"] = np.dtype(bool)
    arrays = {
        name: ArraySpec((n_rows, lengths.decoder), dtype) for name, dtype in decoder_dtypes.items()
    }
    if has_encoder:
        arrays = prefixed("decoder_", arrays)
        for name in ("tokens", "segment_ids", "positions"):
            arrays[f"encoder_{name}"] = ArraySpec((n_rows, lengths.encoder), int32)
    arrays["row_ids"] = ArraySpec((n_rows,), int32)
    return arrays
