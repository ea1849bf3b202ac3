"""Who makes the parts of stores: this process, or several on this machine; see `beam` for more."""

import concurrent.futures
import multiprocessing
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, Protocol

from ift_jax.config.schema import Config
from ift_jax.errors import UserError
from ift_jax.preparation.shards import Part
from ift_jax.preparation.write_part import write_part, write_part_by_name
from ift_jax.text.examples import ExampleFormatter

if TYPE_CHECKING:
    import seqio

_PARALLEL_FROM = 50_000  # Examples from which processes pay: each imports TensorFlow for seconds.


class Executor(Protocol):
    """Makes parts of stores, in any order."""

    def run(self, parts: Sequence[Part]) -> Iterator[dict[str, Any]]:
        """Make the parts; yield each one's report when it is made.

        Raises:
            UserError: A record cannot be read or encoded, or a worker was lost.
        """
        ...


class Local:
    """Makes parts on this machine, in several processes if `data.processes` says so or they pay.

    Args:
        config: The run's config.
        tasks: The tasks by their names.
        formatter: Encodes the examples.
        tokenizer_path: Where other processes find the tokenizer of the formatter.
    """

    def __init__(
        self,
        config: Config,
        tasks: Mapping[str, "seqio.Task"],
        formatter: ExampleFormatter,
        tokenizer_path: str,
    ) -> None:
        self._config = config
        self._in_process = InProcess(tasks, formatter, config.seed)
        self._tokenizer_path = tokenizer_path

    def run(self, parts: Sequence[Part]) -> Iterator[dict[str, Any]]:
        processes = self._config.data.processes
        if not processes and sum(part.examples for part in parts) >= _PARALLEL_FROM:
            processes = _usable_cores()
        processes = min(processes, len(parts))
        if processes <= 1:
            return self._in_process.run(parts)
        return Processes(self._config, self._tokenizer_path, processes).run(parts)


class InProcess:
    """Makes one part after another in this process.

    Args:
        tasks: The tasks by their names.
        formatter: Encodes the examples.
        seed: The run's seed, `config.seed`.
    """

    def __init__(
        self, tasks: Mapping[str, "seqio.Task"], formatter: ExampleFormatter, seed: int
    ) -> None:
        self._tasks = tasks
        self._formatter = formatter
        self._seed = seed

    def run(self, parts: Sequence[Part]) -> Iterator[dict[str, Any]]:
        for part in parts:
            yield write_part(part, self._tasks[part.task], self._formatter, self._seed)


class Processes:
    """Makes parts in processes of their own, which register the tasks again by the config.

    Args:
        config: The run's config.
        tokenizer_path: The tokenizer's file or folder.
        processes: How many.
    """

    def __init__(self, config: Config, tokenizer_path: str, processes: int) -> None:
        self._config = config
        self._tokenizer_path = tokenizer_path
        self._processes = processes

    def run(self, parts: Sequence[Part]) -> Iterator[dict[str, Any]]:
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(
            self._processes, context, initializer=_die_with_parent
        ) as pool:
            futures = [
                pool.submit(write_part_by_name, self._config, self._tokenizer_path, part)
                for part in parts
            ]
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


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _die_with_parent() -> None:
    """End a worker whose parent is killed: it must not write without the locks of the parent."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
