"""Global batches as a pure function of (stores, config, seed, step)."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from ift_jax.config.schema import Config, DataConfig
from ift_jax.data.mixture import Mixture
from ift_jax.data.packed_layout import RowLayout
from ift_jax.data.packed_windows import Planner
from ift_jax.data.sample_order import SampleOrder

Batch = dict[str, np.ndarray]
INT = np.dtype(np.int32)


class BatchPlan:
    """The batches of a run of some `steps`, or of `epochs`.

    Rows are numbered through all windows; step s holds rows s * B to (s + 1) * B. How many rows
    a window has is planned at the start, what is in them when it is asked for: whatever step is
    asked for first, the cost is the same.

    An epoch is as many examples as the tasks have; at rates proportional to the tasks' sizes each
    of them once. The last batch is then filled up with empty rows. `data` says row lengths,
    packing, window, and the folder in which the plan is kept; `batch_size` is B, of the global
    batch. With `bidirectional_prefix` a decoder's batches carry `prefix_mask`.

    Attributes:
        n_rows, n_examples, n_tokens, n_encoder_tokens, n_trained_tokens: what the planned
            windows hold (of a run of `n_steps` the last window counts as a whole).
        fill: share of the planned rows' positions that hold a token.
    """

    def __init__(
        self,
        view: Mixture,
        data: DataConfig,
        architecture: str,
        batch_size: int,
        seed: int,
        *,
        steps: int = 0,
        epochs: float = 0.0,
        bidirectional_prefix: bool = False,
    ):
        if not (steps > 0 or epochs > 0):
            raise ValueError(f"steps={steps}, epochs={epochs}: one must be positive")
        self.view, self.batch_size = view, batch_size
        self._encoder_decoder = architecture == "encoder_decoder"
        self._bidirectional_prefix = bidirectional_prefix and not self._encoder_decoder
        end = None if steps > 0 else epochs
        self.order = SampleOrder(view.sizes, view.rates, seed, view.tasks, data.window, end)
        self._planner = Planner(view, data, architecture, seed, self.order)
        totals = self._planner.all_totals(steps * batch_size if steps > 0 else None)
        self.n_rows, self.n_examples, *n_tokens = totals.sum(axis=0).tolist()
        self.n_tokens, self.n_encoder_tokens, self.n_trained_tokens = n_tokens
        self._rows_before = np.concatenate([[0], np.cumsum(totals[:, 0])])
        self.n_steps = steps if steps > 0 else -(-self.n_rows // batch_size)
        self.capacities = self._planner.capacities
        positions = max(self.n_rows * sum(self.capacities), 1)
        self.fill = (self.n_tokens + self.n_encoder_tokens) / positions
        rows_per_epoch = self.n_rows * self.order.n_examples / max(self.n_examples, 1)
        self.steps_per_epoch = rows_per_epoch / batch_size

    @classmethod
    def of_config(cls, config: Config, view: Mixture) -> "BatchPlan":
        """The training batches of a run."""
        train = config.train
        return cls(
            view,
            config.data,
            config.model.architecture,
            train.batch_size,
            config.seed,
            steps=train.steps,
            epochs=train.epochs,
            bidirectional_prefix=config.format.bidirectional_prefix,
        )

    @functools.cached_property
    def task_examples(self) -> np.ndarray:
        """int64[T]: how often the planned windows visit each task."""
        last = len(self._rows_before) - 2
        return np.array([self.order.visits(t, last)[1] for t in range(len(self.view.tasks))])

    def summary(self) -> dict[str, Any]:
        """What the planned run shows of each task."""
        seen, sizes = self.task_examples.tolist(), self.view.sizes
        tasks = {
            name: {
                "examples_seen": seen[i],
                "epochs": seen[i] / sizes[i][0],
                "requested_share": float(self.order.shares[i]),
                "realised_share": seen[i] / max(sum(seen), 1),
            }
            for i, name in enumerate(self.view.tasks)
        }
        return {"steps": self.n_steps, "fill": self.fill, "tasks": tasks}

    def examples(self, step: int, rows: slice = slice(None)) -> tuple[np.ndarray, ...]:
        """Which examples are in some rows of a batch.

        Returns counts int64[rows], examples in each row (0: an empty row); and for each of the n
        examples, row after row: task_ids int32[n], variants int32[n], example_ids int64[n].
        """
        if not 0 <= step < self.n_steps:
            raise IndexError(f"step {step} of a run of {self.n_steps}")
        first, stop, _ = rows.indices(self.batch_size)
        at, end = (step * self.batch_size + row for row in (first, stop))
        empty = max(end - max(at, self.n_rows), 0)
        nothing = np.zeros(0, np.int32)
        pieces = []
        while at < min(end, self.n_rows):
            window = int(np.searchsorted(self._rows_before, at, side="right")) - 1
            offset, next_window = self._rows_before[window : window + 2].tolist()
            until = min(end, next_window)
            pieces.append(self._planner.rows(window, at - offset, until - offset))
            at = until
        pieces.append((np.zeros(empty, np.int64), nothing, nothing, np.zeros(0, np.int64)))
        return tuple(np.concatenate(column) for column in zip(*pieces, strict=True))

    def batch(self, step: int, rows: slice = slice(None)) -> Batch:
        """The batch of a step, or some contiguous rows of it.

        For a decoder, of shape B x L unless said otherwise: `tokens` int32; `targets` int32, the
        next token of the same example, else 0; `loss_weights` float32, of the target;
        `segment_ids` int32, 1.. in a row and 0 in padding; `positions` int32, from 0 in each
        example; `task_ids` int32, -1 in padding; `row_ids` int32[B], place in the global batch;
        with a bidirectional prefix `prefix_mask` bool, true before an example's first trained
        token.

        For an encoder-decoder: `encoder_tokens`, `encoder_segment_ids`, `encoder_positions`
        (B x L_encoder); `decoder_tokens`, the targets shifted right in each example with 0 first,
        `decoder_targets`, `decoder_loss_weights`, `decoder_segment_ids`, `decoder_positions`,
        `decoder_task_ids` (B x L_decoder); `row_ids`. Segment k of the encoder belongs to segment
        k of the decoder; it may be empty.
        """
        counts, task_ids, variants, example_ids = self.examples(step, rows)
        places = zip(task_ids.tolist(), variants.tolist(), example_ids.tolist(), strict=True)
        found = [(self.view.stores[t].renderings[v], i) for t, v, i in places]
        flat = self.view.flat_ids(task_ids, variants, example_ids)
        layout = RowLayout(self.view.lengths[flat], counts, self.capacities[-1])
        pairs = [rendering.tokens_and_weights(i) for rendering, i in found]
        tokens = layout.concatenate([ids for ids, _ in pairs], np.int32)
        weights = layout.concatenate([weights for _, weights in pairs], np.float32)
        same = layout.places() | {"task_ids": layout.repeat(task_ids, -1)}
        row_ids = np.arange(*rows.indices(self.batch_size), dtype=np.int32)
        if self._encoder_decoder:
            encoder = RowLayout(self.view.encoder_lengths[flat], counts, self.capacities[0])
            texts = [rendering.encoder_tokens(i) for rendering, i in found]
            return {
                "encoder_tokens": encoder.concatenate(texts, np.int32),
                **{f"encoder_{name}": value for name, value in encoder.places().items()},
                "decoder_tokens": layout.shift_right(tokens),
                "decoder_targets": tokens,
                "decoder_loss_weights": weights,
                **{f"decoder_{name}": value for name, value in same.items()},
                "row_ids": row_ids,
            }
        batch = {
            "tokens": tokens,
            "targets": layout.shift_left(tokens),
            "loss_weights": layout.shift_left(weights),
            **same,
            "row_ids": row_ids,
        }
        if self._bidirectional_prefix:
            prefix_N = np.array([rendering.prefix_lengths[i] for rendering, i in found], np.int32)
            batch["prefix_mask"] = batch["positions"] < layout.repeat(prefix_N, 0)
        return batch


def batch_arrays(config: Config) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Name -> shape and dtype of what `BatchPlan.batch` gives in a run, known without its data."""
    rows = config.train.batch_size
    encoder_decoder = config.model.architecture == "encoder_decoder"
    length = config.row_lengths.decoder
    seen: dict[str, np.dtype] = dict.fromkeys(("tokens", "segment_ids", "positions"), INT)
    side = seen | dict.fromkeys(("targets", "task_ids"), INT) | {"loss_weights": np.dtype("f4")}
    if config.format.bidirectional_prefix and not encoder_decoder:
        side["prefix_mask"] = np.dtype(bool)
    before = "decoder_" if encoder_decoder else ""
    arrays = {before + name: ((rows, length), dtype) for name, dtype in side.items()}
    if encoder_decoder:
        shape = (rows, config.row_lengths.encoder)
        arrays |= {f"encoder_{name}": (shape, dtype) for name, dtype in seen.items()}
    return {**arrays, "row_ids": ((rows,), INT)}


def eval_batches(
    view: Mixture,
    data: DataConfig,
    architecture: str,
    batch_size: int,
    *,
    max_rows: int = 0,
    bidirectional_prefix: bool = False,
) -> Iterator[Batch]:
    """Every example of a mixture (as rendered for epoch 0) once, whatever the rates and seed.

    The last batch is filled up with empty rows. With `max_rows` it is a sample: the first rows
    of a fixed shuffle over all tasks, in proportion to their sizes.
    """
    sizes = np.array([sizes[0] for sizes in view.sizes], np.float64)
    plan = BatchPlan(
        dataclasses.replace(view, rates=sizes),
        data,
        architecture,
        batch_size,
        0,
        epochs=1.0,
        bidirectional_prefix=bidirectional_prefix,
    )
    n_steps = min(plan.n_steps, -(-max_rows // batch_size)) if max_rows else plan.n_steps
    yield from map(plan.batch, range(n_steps))
