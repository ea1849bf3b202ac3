"""The mixing rates of a SeqIO mixture, with the examples counted in the token stores."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import seqio

from ift_jax.errors import UserError


def mixing_rates(
    provider: seqio.Task | seqio.Mixture,
    tasks: Sequence[seqio.Task],
    split: str,
    counts: Mapping[str, int],
) -> list[float]:
    """Return the rate of each task, as `seqio.Mixture.get_rate` gives it.

    Args:
        provider: The mixture, or a task alone.
        tasks: Tasks of it.
        split: The split whose examples are counted.
        counts: Task -> examples in its store, which rate functions see as the number of examples
            in `split`. Tasks without a count are seen as they are.

    Raises:
        UserError: A rate is not a finite number of at least 0, or the rate of a mixture in the
            mixture is not a number.
    """
    if isinstance(provider, seqio.Task):
        return [1.0 for _ in tasks]
    seen = {
        task.name: _CountedTask(task, split, counts[task.name]) if task.name in counts else task
        for task in provider.tasks
    }
    rates = _MixtureRates(provider, seen)
    return [rates.of(task.name) for task in tasks]


class _MixtureRates:
    """The rates of one mixture.

    It follows `seqio.Mixture.get_rate`: the rate of a task is the one that the mixture gives it,
    plus its share in each mixture of the mixture, times the rate of that. (SeqIO's own method takes
    the tasks as they are registered, and cannot be told the counts.)

    Args:
        mixture: The mixture.
        seen: The tasks, by name, as rate functions see them.
    """

    def __init__(self, mixture: seqio.Mixture, seen: Mapping[str, seqio.Task]) -> None:
        self._mixture = mixture
        self._seen = seen
        self._tasks = {task.name for task in mixture.tasks}
        self._nested: dict[str, _MixtureRates] = {}
        for name, rate in mixture.rate_per_task_name.items():
            if name in self._tasks:
                continue
            if callable(rate):
                raise UserError(
                    f"mixture {mixture.name!r}: the rate of the mixture {name!r} in it must be a "
                    "number"
                )
            if name not in seqio.MixtureRegistry.names():
                raise UserError(
                    f"mixture {mixture.name!r}: the mixture {name!r} in it is not registered"
                )
            self._nested[name] = _MixtureRates(seqio.MixtureRegistry.get(name), seen)

    def of(self, task: str) -> float:
        """Return the rate of a task of the mixture."""
        value = 0.0
        for name, nested in self._nested.items():
            if task in nested._tasks:
                value += self._member_rate(name) * nested.of(task) / nested._total
        if task in self._mixture.rate_per_task_name:
            value += self._member_rate(task)
        return value

    @functools.cached_property
    def _total(self) -> float:
        """The sum of the rates that the mixture gives to its tasks and mixtures."""
        return sum(map(self._member_rate, self._mixture.rate_per_task_name))

    def _member_rate(self, name: str) -> float:
        """Return the rate that the mixture gives to a task or mixture in it."""
        rate = self._mixture.rate_per_task_name[name]
        try:
            value = float(rate(self._seen[name]) if callable(rate) else rate)
        except (TypeError, ValueError, AssertionError):
            value = float("nan")
        if not 0 <= value < float("inf"):
            raise UserError(
                f"mixture {self._mixture.name!r}: the rate of {name!r} is not a finite number of "
                "at least 0 (a task whose source does not tell its number of examples needs a "
                "number as rate)"
            )
        return value


class _CountedTask(seqio.Task):
    """A task as SeqIO's rate functions see it: cached, with the examples of its token store.

    `seqio.mixing_rate_num_examples` takes the number of examples after preprocessing of a task that
    is cached, and the number of raw records of any other.

    Args:
        task: The task.
        split: The split whose examples are counted.
        count: The examples in the store.
    """

    def __init__(self, task: seqio.Task, split: str, count: int) -> None:
        super().__init__(
            task.name,
            source=task.source,
            output_features=task.output_features,
            preprocessors=task.preprocessors,
            postprocess_fn=task.postprocessor,
        )
        self._counted_split = split
        self._count = count

    @property
    def cache_dir(self) -> str:
        return "token store"

    def num_input_examples(self, split: str) -> int | None:
        if split == self._counted_split:
            return self._count
        count: int | None = super().num_input_examples(split)
        return count

    def get_cached_stats(self, split: str = "train") -> Mapping[str, Any]:
        return {"examples": self.num_input_examples(split)}
