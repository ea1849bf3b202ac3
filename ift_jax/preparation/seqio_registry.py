"""SeqIO's registries: importing task modules, and resolving a mixture into tasks and rates."""

import contextlib
import functools
import importlib
import os
import sys
from collections.abc import Mapping
from typing import Any

import seqio
import tensorflow as tf

from ift_jax.errors import UserError, did_you_mean

with contextlib.suppress(RuntimeError):  # Its devices are in use already: by the user's wish.
    tf.config.set_visible_devices([], "GPU")  # TensorFlow would take the memory that JAX needs.

_registered: dict[str, tuple[str, set[str]]] = {}  # Module -> (root, what it registered).


def import_modules(modules: tuple[str, ...], root: str) -> None:
    """Imports modules that register tasks, and calls `register(root)` of those that have it."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # A console script does not put it there.
    for name in modules:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            why = "" if name.startswith(error.name or name) else f" (it imports {error.name!r})"
            raise UserError(
                f"data.modules: module {name!r} cannot be imported{why}; expected a module of "
                f"an installed package or of a folder on the Python path, such as {os.getcwd()}"
            ) from None
        if hasattr(module, "register"):
            _register(module, os.path.abspath(root) if root else "")


def _register(module: Any, root: str) -> None:
    name = module.__name__
    if name in _registered:
        old_root, providers = _registered[name]
        if old_root == root and providers <= set(_names()):
            return
        for registry in (seqio.TaskRegistry, seqio.MixtureRegistry):
            for provider in providers & set(registry.names()):
                registry.remove(provider)  # It stands for another root's data.
    before = set(_names())
    module.register(root)
    _registered[name] = (root, set(_names()) - before)


def registered_by(module: str) -> set[str]:
    """The names that an imported module's `register` has registered."""
    return _registered[module][1] if module in _registered else set()


def _names() -> list[str]:
    return [*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()]


def resolve(name: str, field: str) -> seqio.Task | seqio.Mixture:
    """The SeqIO task or mixture of this name; a UserError names the config's `field` of it."""
    names = sorted(_names())
    if name in names:
        return seqio.get_mixture_or_task(name)
    known = f"known: {', '.join(names[:20])}" if names else "data.modules registers nothing"
    hint = did_you_mean(name, names) or f"; {known}"
    raise UserError(f"{field}: no SeqIO task or mixture is called {name!r}{hint}")


def tasks_of(provider: seqio.Task | seqio.Mixture, split: str, field: str) -> list[seqio.Task]:
    """The tasks that have a split, sorted by name (as SeqIO does); a UserError if none has it."""
    tasks = seqio.get_subtasks(provider)
    having = [task for task in tasks if split in task.splits]
    if not having:
        splits = ", ".join(sorted({s for task in tasks for s in task.splits}))
        raise UserError(
            f"{field}: no task of {provider.name!r} has the split {split!r}; expected: {splits}"
        )
    return having


class _CountedTask:
    """A task as SeqIO's rate functions see it: cached, its examples counted in the token store.

    (Of a task that is not cached `mixing_rate_num_examples` takes the raw count.)
    """

    cache_dir = "token store"

    def __init__(self, task: seqio.Task, split: str, count: int):
        self._task, self._split, self._count = task, split, count

    def num_input_examples(self, split: str) -> int | None:
        return self._count if split == self._split else self._task.num_input_examples(split)

    def get_cached_stats(self, split: str = "train") -> Mapping[str, int | None]:
        return {"examples": self.num_input_examples(split)}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)


def rates(
    provider: seqio.Task | seqio.Mixture,
    tasks: list[seqio.Task],
    split: str,
    counts: Mapping[str, int] = {},  # noqa: B006 (read only)
) -> list[float]:
    """SeqIO's mixing rate of each task: `seqio.Mixture.get_rate`.

    With `counts`, rate functions see them as the number of examples in `split`. A UserError, if a
    rate is not a number, or negative.
    """
    if isinstance(provider, seqio.Task):
        return [1.0]
    counted = [task for task in provider.tasks if task.name in counts]
    seen = {task.name: _CountedTask(task, split, counts[task.name]) for task in counted}
    checked = _checked(provider, seen)
    return [checked.get_rate(task) for task in tasks]


def _checked(mixture: seqio.Mixture, seen: Mapping[str, Any]) -> seqio.Mixture:
    """A copy of a mixture whose rate functions see those tasks, and whose rates are checked."""
    parts: list[tuple[Any, Any]] = []
    for name, rate in mixture.rate_per_task_name.items():
        part = mixture._task_map[name]
        if isinstance(part, seqio.Task):
            parts.append((part, functools.partial(_rate, mixture.name, rate, seen.get(name))))
        elif callable(rate):
            raise UserError(
                f"mixture {mixture.name!r}: the rate of the mixture {name!r} in it must be a number"
            )
        else:
            parts.append((_checked(part, seen), float(rate)))
    return seqio.Mixture(mixture.name, parts)


def _rate(mixture: str, rate: Any, counted: Any, task: seqio.Task) -> float:
    try:
        value = float(rate(counted or task) if callable(rate) else rate)
    except (TypeError, ValueError, AssertionError):
        value = float("nan")
    if not 0 <= value < float("inf"):
        raise UserError(
            f"mixture {mixture!r}: the rate of {task.name!r} is not a finite number of at least "
            "0 (a task whose source does not tell its number of examples needs a number as rate)"
        )
    return value
