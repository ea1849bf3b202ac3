"""Who makes the parts of stores: this process, or several on this machine; see `beam` for more."""

import concurrent.futures
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self

from ift_jax.config.schema import Config
from ift_jax.errors import UserError
from ift_jax.io.child_process import die_with_parent
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

    It is a context, at whose end the processes end: those that made one batch of parts make the
    next as well.

    Args:
        config: The run's config.
        tasks: The tasks by their names.
        formatter: Encodes the examples.
        tokenizer_path: Where other processes find the tokenizer of the formatter.
        examples: About how many examples all parts have that it will be given.
    """

    def __init__(
        self,
        config: Config,
        tasks: Mapping[str, "seqio.Task"],
        formatter: ExampleFormatter,
        tokenizer_path: str,
        examples: int,
    ) -> None:
        self._in_process = InProcess(tasks, formatter, config.seed)
        pays = examples >= _PARALLEL_FROM
        n_processes = config.data.processes or (_usable_cores() if pays else 1)
        self._processes = Processes(config, tokenizer_path, n_processes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._processes.close()

    def run(self, parts: Sequence[Part]) -> Iterator[dict[str, Any]]:
        alone = min(self._processes.n_processes, len(parts)) <= 1
        return (self._in_process if alone else self._processes).run(parts)


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

    They are started when there are parts to make, and end with `close`.

    Args:
        config: The run's config.
        tokenizer_path: The tokenizer's file or folder.
        n_processes: How many, at most.

    Attributes:
        n_processes: The same.
    """

    def __init__(self, config: Config, tokenizer_path: str, n_processes: int) -> None:
        self._config = config
        self._tokenizer_path = tokenizer_path
        self.n_processes = n_processes
        self._pool = concurrent.futures.ProcessPoolExecutor(
            n_processes, multiprocessing.get_context("spawn"), initializer=die_with_parent
        )

    def run(self, parts: Sequence[Part]) -> Iterator[dict[str, Any]]:
        futures = [
            self._pool.submit(write_part_by_name, self._config, self._tokenizer_path, part)
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
            for future in futures:
                future.cancel()

    def close(self) -> None:
        """End the processes, each with the part that it is making."""
        self._pool.shutdown(cancel_futures=True)


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
