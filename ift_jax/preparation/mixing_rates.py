"""The mixing rates of a SeqIO mixture, with the examples counted in the token stores."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import seqio

from ift_jax.errors import UserError, of_users_code


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


def never_drawn(provider: seqio.Task | seqio.Mixture) -> frozenset[str]:
    """Return the tasks of a mixture whose rate is the number 0, on every way to them.

    SeqIO never reads them. Rate functions are not called: they may count examples.
    """
    if isinstance(provider, seqio.Task):
        return frozenset()
    return frozenset(task.name for task in provider.tasks) - _drawn(provider)


def _drawn(mixture: seqio.Mixture) -> set[str]:
    tasks = {task.name for task in mixture.tasks}
    drawn: set[str] = set()
    for name, rate in mixture.rate_per_task_name.items():
        if not callable(rate) and rate == 0:
            continue
        drawn |= {name} if name in tasks else _drawn(_nested(mixture, name))
    return drawn


def _nested(mixture: seqio.Mixture, name: str) -> seqio.Mixture:
    if name not in seqio.MixtureRegistry.names():
        raise UserError(f"mixture {mixture.name!r}: the mixture {name!r} in it is not registered")
    return seqio.MixtureRegistry.get(name)


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
            self._nested[name] = _MixtureRates(_nested(mixture, name), seen)

    def of(self, task: str) -> float:
        """Return the rate of a task of the mixture."""
        value = 0.0
        for name, nested in self._nested.items():
            if task in nested._tasks and (rate := nested.of(task)):
                value += self._member_rate(name) * rate / nested._total
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
        wrong = (
            f"mixture {self._mixture.name!r}: the rate of {name!r} is not a finite number of at "
            "least 0 (a task whose source does not tell its number of examples needs a number as "
            "rate)"
        )
        with of_users_code(wrong):
            value = float(rate(self._seen[name]) if callable(rate) else rate)
        if not 0 <= value < float("inf"):
            raise UserError(wrong)
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
