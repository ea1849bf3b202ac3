"""Preparing: the tasks of a mixture become token stores, once.

A store's folder is named by a hash of all that determines its bytes; it is built under
`<name>.partial`, part by part, and renamed when whole. SeqIO and TensorFlow are imported inside
the functions, if at all: see `ift_jax.preparation.open_or_prepare`.
"""

import concurrent.futures
import contextlib
import dataclasses
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ift_jax.config.mixtures import mixture_and_split
from ift_jax.config.schema import Config
from ift_jax.data.mixture import Mixture
from ift_jax.data.store import FORMAT_VERSION, MANIFEST
from ift_jax.data.store_copies import fetched
from ift_jax.errors import UserError
from ift_jax.io.files import Log, json_digest
from ift_jax.io.locks import build_lock
from ift_jax.io.paths import is_remote, place
from ift_jax.metrics import metric_name
from ift_jax.preparation import beam as on_beam
from ift_jax.preparation import fingerprints, shards
from ift_jax.preparation.drop_limits import open_checked
from ift_jax.preparation.module_files import module_files
from ift_jax.preparation.shards import Unit
from ift_jax.preparation.store_writer import finish_store
from ift_jax.text.examples import ExampleFormatter
from ift_jax.text.tokenizers.load import Tokenizer, load_run_tokenizer, tokenizer_files

if TYPE_CHECKING:
    import seqio

_PARALLEL_FROM = 50_000  # Examples from which starting processes (TensorFlow: seconds) pays.
_LOG_SECONDS = 5.0  # Between two lines of progress.
_IN_MANIFEST = ("variants", "max_length", "inputs_length", "targets_length", "over_length")
_STORES_AT_ONCE = 256  # Each holds a lock file open while it is built.


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A mixture with all stores in place."""

    tokenizer: Tokenizer
    tokenizer_path: str  # One that was trained here lies in the store folder.
    view: Mixture
    files: list[str]  # All that were read: modules, data, tokenizer.
    data_files: list[str]  # Those among them that hold data.


@dataclasses.dataclass(frozen=True)
class _Wanted:
    task: "seqio.Task"
    folder: Path
    key: dict[str, Any]  # All that determines the store, by name.

    @property
    def is_there(self) -> bool:
        return (self.folder / MANIFEST).exists()

    @property
    def partial(self) -> Path:
        name = self.folder.name + ("" if is_remote(self.folder) else ".partial")
        return self.folder.with_name(name)


def prepare(
    config: Config, which: str = "train", *, log: Log = print, beam: Sequence[str] = ()
) -> Prepared:
    """Makes what is missing of the stores of a mixture ("train", "eval", "heldout"); opens them.

    `log` is told of progress, a line at a time. With `beam` (see `on_beam.checked_options`) its
    workers make the parts.

    Raises:
        UserError: a mistake in the config, in a task or in its data, or a task of which too much
            was refused.
    """
    with shards.quiet_import():
        from ift_jax.preparation import holdout_check, run_tokenizer, seqio_registry
        from ift_jax.preparation.source_files import source_files, source_fingerprint

    data = config.data
    name, split, field = mixture_and_split(config, which)
    if is_remote(data.root):
        raise UserError(f"data.root: {data.root} is in a bucket; expected a copy on this machine")
    seqio_registry.import_modules(data.modules, data.root)
    holdout_check.check_config(data)
    provider = seqio_registry.resolve(name, field)
    tasks = seqio_registry.tasks_of(provider, split, field)
    if not is_remote(data.store_dir):
        os.makedirs(data.store_dir, exist_ok=True)
    modules = module_files(data.modules)
    modules_digest = fingerprints.code_digest(modules)
    tokenizer_path = run_tokenizer.tokenizer_path(config, modules_digest, log)
    tokenizer = load_run_tokenizer(config, tokenizer_path)
    formatter = ExampleFormatter.from_config(config, tokenizer)

    wanted, our_code = [], fingerprints.our_code()
    for task in tasks:
        if not shards.is_text_task(task):
            shards.check_vocabulary(task, tokenizer)
        key = {
            "format_version": FORMAT_VERSION,
            "our_code": our_code,
            "task": task.name,
            "split": split,
            "task_modules": modules_digest,
            "source": source_fingerprint(task.source, split),
            "formatter": formatter.fingerprint,
            "seed": config.seed,
            "variants": data.variants,
        }
        folder = f"{task.name}-{split}-{json_digest(key)[:12]}"
        wanted.append(_Wanted(task, place(data.store_dir) / folder, key))
    # In the order of their names, so that no two processes wait for one another in a ring.
    missing = sorted((w for w in wanted if not w.is_there), key=lambda w: w.folder.name)
    if missing:
        log(f"preparing {len(missing)} of {len(wanted)} stores of {name!r}, split {split!r}")

    def run(units: Sequence[Unit], tasks: dict[str, "seqio.Task"]) -> Iterator[dict[str, Any]]:
        if beam:
            return on_beam.run(config, units, tokenizer_path, beam)
        return _run(config, units, tasks, formatter, tokenizer_path)

    for at in range(0, len(missing), _STORES_AT_ONCE):
        _build(config, split, missing[at : at + _STORES_AT_ONCE], run, log)

    names = [task.name for task in tasks]
    stores = open_checked([fetched(w.folder) for w in wanted], names, data.max_dropped_fraction)
    counts = dict(zip(names, map(len, stores), strict=True))
    rates = np.array(seqio_registry.rates(provider, tasks, split, counts), np.float64)
    view = Mixture(names, rates, stores, [_metric_names(task, log) for task in tasks])
    data_files = sorted({f for t in tasks for f in source_files(t.source, split)})
    files = [*map(str, modules), *data_files, *tokenizer_files(tokenizer_path)]
    return Prepared(tokenizer, tokenizer_path, view, files, data_files)


def _metric_names(task: "seqio.Task", log: Log) -> list[str]:
    """Return the names of the task's metrics, as `ift_jax.metrics.metric_by_name` takes them."""
    names = []
    for metric in task.metric_fns:
        name = metric_name(metric)
        if name is None:
            log(f"task {task.name!r}: a metric without a name of its own is left out: {metric}")
        else:
            names.append(name)
    return names


def _build(
    config: Config,
    split: str,
    wanted: Sequence[_Wanted],
    run: Callable[[Sequence[Unit], dict[str, "seqio.Task"]], Iterator[dict[str, Any]]],
    log: Log,
) -> None:
    """Builds stores, `run` making their parts; another process that builds one is waited for."""
    with contextlib.ExitStack() as locks:
        for want in wanted:
            locks.enter_context(build_lock(want.folder.parent, want.folder.name, log))
        wanted = [want for want in wanted if not want.is_there]
        units: dict[str, list[Unit]] = {}
        for want in wanted:
            if not is_remote(want.partial):
                want.partial.mkdir(exist_ok=True)
                for left in want.partial.glob(".*.tmp"):
                    left.unlink()
            units[want.task.name] = shards.units_of(
                want.task, split, config.data.variants, want.partial
            )
        parts = [unit for made in units.values() for unit in made]
        todo = [unit for unit in parts if not unit.path.with_suffix(".json").exists()]
        if len(todo) < len(parts):
            log(f"{len(parts) - len(todo)} of {len(parts)} parts are there already")
        tasks = {want.task.name: want.task for want in wanted}
        total, last_line = 0, time.monotonic()
        for done, report in enumerate(run(todo, tasks), 1):
            total += report["examples"]
            if time.monotonic() > last_line + _LOG_SECONDS or done == len(todo):
                log(f"  part {done} of {len(todo)}: {total:,} examples")
                last_line = time.monotonic()
        for want in wanted:
            manifest = {name: getattr(config.data, name) for name in _IN_MANIFEST} | {
                "task": want.task.name,
                "group": getattr(want.task.source, "group", ""),
                "split": split,
                "shards": units[want.task.name][0].shards,
                "architecture": config.model.architecture,
                "format": dataclasses.asdict(config.format),
                "key": want.key,
            }
            finish_store(want.partial, want.folder, manifest)


def _run(
    config: Config,
    units: Sequence[Unit],
    tasks: dict[str, "seqio.Task"],
    formatter: ExampleFormatter,
    tokenizer_path: str,
) -> Iterator[dict[str, Any]]:
    """Makes parts, in this process or in several; yields the reports as they come."""
    processes = config.data.processes
    if not processes and sum(unit.examples for unit in units) >= _PARALLEL_FROM:
        affinity = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
        processes = len(affinity(0))
    processes = min(processes, len(units))
    if processes <= 1:
        for unit in units:
            yield shards.write_part(unit, tasks[unit.task], formatter, config.seed)
        return
    with concurrent.futures.ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), initializer=_die_with_parent
    ) as pool:
        futures = [pool.submit(shards.run_unit, config, tokenizer_path, u) for u in units]
        try:
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
        except concurrent.futures.process.BrokenProcessPool:
            raise UserError(
                "a process that prepares data died (out of memory?); run again, perhaps with "
                "a smaller data.processes: finished parts are kept"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _die_with_parent() -> None:
    """A worker must not go on writing when the process that holds the locks was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
