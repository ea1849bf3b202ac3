"""Reference log-probabilities of pairs: computed once, and kept beside the stores.

The reference model is the one that a run begins with, so it takes no memory of its own: what it
makes of every pair that the run will show is computed before the first step. The numbers are kept
in one file for each store and reference model, named after both by content
(`ift_jax.training.reference_files`), so other runs from the same model read them, and none reads
those of another model. A run notes its reference in its workdir; where numbers are gone, a resumed
run computes them again from the same model and refuses another one.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from ift_jax.data.eval_batches import eval_plan_of_run
from ift_jax.data.mixture import Mixture
from ift_jax.data.packed_windows import Examples, RowExamples
from ift_jax.data.packing import pack
from ift_jax.data.pairs import REFERENCE
from ift_jax.data.row_batch import lay_out
from ift_jax.errors import UserError, counted
from ift_jax.io.files import json_bytes, json_digest, read_json, write
from ift_jax.io.stop_signals import Stopped
from ift_jax.models.model import Params
from ift_jax.sharding.batch_placement import put_batch
from ift_jax.sharding.checksums import checksums
from ift_jax.sharding.first_process import of_first_process
from ift_jax.training.console import Console
from ift_jax.training.preference_loss import Sides
from ift_jax.training.preference_step import log_probs_of_pairs
from ift_jax.training.reference_files import read_log_probs, write_log_probs
from ift_jax.training.setup import Run
from ift_jax.training.state import State, all_params

REFERENCE_FILE = "reference.json"  # In the workdir: which model is the run's reference.
_VERSION = 1  # It changes when the fingerprint is made in another way.
_DIGITS = 16
# Fields of a model's config that do not change what it computes.
_NO_MATTER = ("init_from", "remat", "attention", "dropout", "dropout_schedule")
_WRITE_EVERY = 300.0  # Seconds.


def with_references(
    run: Run,
    workdir: str,
    console: Console,
    stopped: Stopped,
    make_state: Callable[[], State],
    *,
    begins: bool,
) -> Run:
    """Return a run with the reference log-probabilities of all pairs that it will show.

    Args:
        run: The run.
        workdir: The local folder of its files, in which the first process writes.
        console: Is told what is computed.
        stopped: Whether to give up; every process must call it equally often.
        make_state: Returns the state at step 0. It is called only if it is needed.
        begins: Whether the run begins, so that no reference is noted yet.

    Raises:
        UserError: Numbers are missing, and the model to compute them with is another one than the
            run began with; or a file of numbers is of something else than its name says.
    """
    if not run.config.preference.trains_pairs:
        return run
    noted = of_first_process(None if begins else read_json(Path(workdir, REFERENCE_FILE)))
    reference = _Reference(run, make_state, noted["fingerprint"] if noted else "")
    if noted is None and jax.process_index() == 0:
        note = {"fingerprint": reference.fingerprint, "init_from": run.config.model.init_from}
        write(Path(workdir, REFERENCE_FILE), json_bytes(note))
    of_mixtures = {"train": run.train, "eval": run.eval, "heldout": run.heldout}
    complete = {
        name: _completed(run, mixture, name, reference, console, stopped)
        for name, mixture in of_mixtures.items()
        if mixture is not None and mixture.holds_pairs
    }
    return dataclasses.replace(
        run,
        train=complete["train"],
        eval=complete.get("eval", run.eval),
        heldout=complete.get("heldout", run.heldout),
        plan=run.plan.with_mixture(complete["train"]),
    )


class _Reference:
    """The reference model, which is loaded when it is first needed."""

    def __init__(self, run: Run, make_state: Callable[[], State], noted: str):
        """Load nothing yet; `noted` is the fingerprint that the run noted, "" if none."""
        self._run = run
        self._make_state = make_state
        self._noted = noted

    @functools.cached_property
    def _loaded(self) -> tuple[Params, str]:
        state = self._make_state()
        found = _fingerprint(self._run, state)
        if self._noted and found != self._noted:
            source = self._run.config.model.init_from or "a fresh model"
            raise UserError(
                f"config.model.init_from: {source} is another model (fingerprint {found}) than the"
                f" one that the run began with ({self._noted}), whose log-probabilities are the"
                " reference of its pairs and are not beside the stores any more; expected that one"
            )
        return all_params(state), found

    @property
    def params(self) -> Params:
        """All of its parameters."""
        return self._loaded[0]

    @property
    def fingerprint(self) -> str:
        """What tells it from other models, by its weights."""
        return self._noted or self._loaded[1]


def _fingerprint(run: Run, state: State) -> str:
    """Return a hash of a model's weights and shape.

    New adapters change nothing of what a model computes, so only the weights below them count.
    """
    config = run.config
    params = state["frozen"] if config.lora.rank else all_params(state)
    sums = np.asarray(checksums({"params": params})["params"]).tolist()
    model = dataclasses.asdict(config.model)
    shape = {name: value for name, value in model.items() if name not in _NO_MATTER}
    return json_digest([_VERSION, sums, shape])[:_DIGITS]


def _completed(
    run: Run,
    mixture: Mixture,
    name: str,
    reference: _Reference,
    console: Console,
    stopped: Stopped,
) -> Mixture:
    """Return a mixture with the log-probabilities of all pairs that the run will show of it."""
    fingerprint = reference.fingerprint
    known = np.concatenate([read_log_probs(store, fingerprint) for store in mixture.stores])
    if jax.process_count() > 1:  # All compute the same, whatever each of them has found.
        known = np.asarray(multihost_utils.broadcast_one_to_all(known))
    shown = _shown(run) if name == "train" else _evaluated(run, mixture)
    missing = shown[np.isnan(known[shown]).any(axis=1)]
    if len(missing):
        began = time.perf_counter()
        console.line(
            f"reference: computing the log-probabilities of {counted(len(missing), 'pair')} of the"
            f" {name} mixture under the model that the run began with"
        )
        written = began
        n_done = 0
        for ids, values in _log_probs(run, mixture, missing, reference.params):
            known[ids] = values
            n_done += len(ids)
            is_stopped = stopped()
            if is_stopped or time.perf_counter() - written > _WRITE_EVERY:
                _write(mixture, fingerprint, known)
                written = time.perf_counter()
            if is_stopped:
                break
        _write(mixture, fingerprint, known)
        seconds = time.perf_counter() - began
        console.line(f"reference: {counted(n_done, 'pair')} in {seconds:.0f} s")
    return dataclasses.replace(mixture, known_log_probs=known)


def _write(mixture: Mixture, fingerprint: str, known: np.ndarray) -> None:
    """Write what is known of each store, in the first process."""
    if jax.process_index():
        return
    start = 0
    for store, sizes in zip(mixture.stores, mixture.sizes, strict=True):
        stop = start + sum(sizes)
        write_log_probs(store, fingerprint, known[start:stop])
        start = stop


def _shown(run: Run) -> np.ndarray:
    """Return the flat ids of the training examples that the run shows, int64[n]."""
    plan, mixture = run.plan, run.train
    n_examples = len(mixture.lengths)
    if plan.n_examples >= n_examples:
        return np.arange(n_examples)
    shown = [plan.examples(step) for step in range(plan.n_steps)]
    ids = [mixture.flat_ids(e.task_ids, e.variants, e.example_ids) for e in shown]
    return np.unique(np.concatenate(ids))


def _evaluated(run: Run, mixture: Mixture) -> np.ndarray:
    """Return the flat ids of the examples of an eval loss, int64[n]."""
    plan, n_steps = eval_plan_of_run(run.config, mixture)
    shown = [plan.examples(step) for step in range(n_steps)]
    ids = [mixture.flat_ids(e.task_ids, e.variants, e.example_ids) for e in shown]
    return np.unique(np.concatenate([np.zeros(0, np.int64), *ids]))


class _Found(NamedTuple):
    """Log-probabilities of some examples."""

    flat_ids: np.ndarray  # int64[n]
    values: np.ndarray  # float32[n, 2]


def _log_probs(
    run: Run, mixture: Mixture, flat_ids: np.ndarray, params: Params
) -> Iterator[_Found]:
    """Yield the log-probabilities of examples, packed into batches as large as a microbatch."""
    program, config = run.program, run.config
    n_rows = config.train.batch_size // config.train.gradient_accumulation_steps
    capacities = run.plan.capacities
    compute = jax.jit(
        functools.partial(log_probs_of_pairs, program.model, chunk=config.loss.chunk),
        out_shardings=NamedSharding(program.mesh, PartitionSpec()),
    )
    if config.data.pack:
        rows_N = pack(mixture.lengths[flat_ids], capacities[-1])
    else:
        rows_N = np.arange(len(flat_ids), dtype=np.int32)
    by_row = np.argsort(rows_N, kind="stable")
    flat_ids, rows_N = flat_ids[by_row], rows_N[by_row]
    names = _names(mixture)
    for first_row in range(0, int(rows_N[-1]) + 1, n_rows):
        here = slice(*np.searchsorted(rows_N, [first_row, first_row + n_rows]).tolist())
        counts_B = np.bincount(rows_N[here] - first_row, minlength=n_rows)
        examples = RowExamples(counts_B, *names.take(flat_ids[here]))
        batch = lay_out(mixture, examples, np.arange(n_rows, dtype=np.int32), capacities)
        del batch[REFERENCE]  # It is what is computed.
        shapes = {name: array.shape for name, array in batch.items()}
        placed = put_batch(program.mesh, shapes, functools.partial(_rows_of, batch))
        sides: Sides = jax.device_get(compute(params, placed))
        is_pair_BxP = np.arange(sides.chosen.shape[1]) < counts_B[:, None]
        values = np.stack([side[is_pair_BxP] for side in sides], axis=1)
        yield _Found(flat_ids[here], values)


def _rows_of(batch: dict[str, np.ndarray], rows: slice) -> dict[str, np.ndarray]:
    return {name: array[rows] for name, array in batch.items()}


def _names(mixture: Mixture) -> Examples:
    """Return the task, the variant and the place in it of every flat id."""
    sizes = [(t, v, n) for t, of_task in enumerate(mixture.sizes) for v, n in enumerate(of_task)]
    return Examples(
        np.concatenate([np.full(n, t, np.int32) for t, _, n in sizes]),
        np.concatenate([np.full(n, v, np.int32) for _, v, n in sizes]),
        np.concatenate([np.arange(n) for _, _, n in sizes]),
    )
