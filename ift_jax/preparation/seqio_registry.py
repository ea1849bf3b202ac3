"""SeqIO's registries: import task modules, and find the tasks of a mixture."""

import contextlib
import importlib
import inspect
import os
from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

import seqio
import tensorflow as tf

from ift_jax.config.systems import FEW_SHOT_NAME, append_working_folder
from ift_jax.errors import UserError, counted, listed, of_users_code, offered
from ift_jax.io.paths import absolute
from ift_jax.preparation.mixing_rates import never_drawn
from ift_jax.text.rows.parse_record import AUTOMATIC, RowOptions

# TensorFlow would take the GPU memory that JAX needs. It raises a RuntimeError where its devices
# are in use already, which is then the user's wish.
with contextlib.suppress(RuntimeError):
    tf.config.set_visible_devices([], "GPU")


class _Registered(NamedTuple):
    root: str  # The data.root that `register` was called with.
    options: RowOptions  # How rows are read.
    names: set[str]  # The tasks and mixtures that it registered.


_registered: dict[str, _Registered] = {}  # By the names of modules.


def import_modules(modules: tuple[str, ...], root: str, options: RowOptions = AUTOMATIC) -> None:
    """Import modules that register tasks, and call `register(root)` of those that have it.

    A `register` with a parameter `row_options` is told how the config wants rows to be read.

    Raises:
        UserError: A module cannot be found, or it or its `register` raises an exception.
    """
    append_working_folder()
    for name in modules:
        with of_users_code(f"data.modules: module {name!r}"):
            module = _import_module(name)
            if hasattr(module, "register"):
                _register(module, absolute(root) if root else "", options)


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        is_itself = f"{name}.".startswith(f"{error.name or name}.")
        why = "" if is_itself else f" (it imports {error.name!r})"
        raise UserError(
            f"data.modules: module {name!r} cannot be imported{why}; expected a module of "
            f"an installed package or of a folder on the Python path, such as {os.getcwd()}"
        ) from None


def _register(module: ModuleType, root: str, options: RowOptions) -> None:
    """Call `register(root)`, once for a root; what it registered for another root is removed.

    The same holds for the options of rows, if `register` takes them.
    """
    takes_options = "row_options" in inspect.signature(module.register).parameters
    options = options if takes_options else AUTOMATIC
    before = _registered.get(module.__name__)
    if before is not None:
        if before[:2] == (root, options) and before.names <= _all_names():
            return
        for registry in (seqio.TaskRegistry, seqio.MixtureRegistry):
            for name in before.names & set(registry.names()):
                registry.remove(name)
    there = _all_names()
    module.register(root, **({"row_options": options} if takes_options else {}))
    _registered[module.__name__] = _Registered(root, options, _all_names() - there)


def registered_by(module: str) -> set[str]:
    """Return the names that an imported module's `register` has registered."""
    return _registered[module].names if module in _registered else set()


def _all_names() -> set[str]:
    return {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}


def resolve(name: str, field: str) -> seqio.Task | seqio.Mixture:
    """Return the SeqIO task or mixture of a name.

    Raises:
        UserError: There is none; names the config's `field` and the nearest name.
    """
    names = sorted(_all_names())
    if name in names:
        return seqio.get_mixture_or_task(name)
    of_twin = FEW_SHOT_NAME.sub("", name)
    if of_twin != name and of_twin in names:
        hint = (
            f"; {of_twin!r} has no few-shot prompts, because not all of its records are inputs and "
            "targets"
        )
    elif names:
        hint = offered(name, names)
    else:
        hint = (
            "; nothing is registered: data.modules is empty or registers nothing, and the table of "
            "data.systems has no such name (is this the folder of the checkout?)"
        )
    raise UserError(f"{field}: no SeqIO task or mixture is called {name!r}{hint}")


class SelectedTasks(NamedTuple):
    """The tasks of a mixture that are read."""

    tasks: list[seqio.Task]  # Sorted by name, as SeqIO sorts them.
    left_out: list[str]  # A line for each reason why others are not read, with their names.


def select_tasks(provider: seqio.Task | seqio.Mixture, split: str, field: str) -> SelectedTasks:
    """Return the tasks that have a split and a rate above 0: those that SeqIO reads.

    Raises:
        UserError: No task is left; names the config's `field` and the splits that there are.
    """
    at_rate_0 = never_drawn(provider)
    drawn = [task for task in seqio.get_subtasks(provider) if task.name not in at_rate_0]
    if not drawn:
        raise UserError(f"{field}: every task of {provider.name!r} has the rate 0")
    splits = {task.name: splits_of(task) for task in drawn}
    having = [task for task in drawn if split in splits[task.name]]
    if not having:
        known = ", ".join(sorted({name for names in splits.values() for name in names}))
        raise UserError(
            f"{field}: no task of {provider.name!r} has the split {split!r}; expected: {known}"
        )
    lacking = [task.name for task in drawn if split not in splits[task.name]]
    left_out = []
    if lacking:
        left_out.append(_left_out(provider, f"have no split {split!r}", lacking))
    if at_rate_0:
        left_out.append(left_out_at_rate_0(provider, sorted(at_rate_0)))
    return SelectedTasks(having, left_out)


def left_out_at_rate_0(provider: seqio.Task | seqio.Mixture, names: Sequence[str]) -> str:
    """Return the line that says which tasks are not read because their rate is 0."""
    return _left_out(provider, "have the rate 0", names)


def _left_out(provider: seqio.Task | seqio.Mixture, why: str, names: Sequence[str]) -> str:
    n_tasks = counted(len(seqio.get_subtasks(provider)), "task")
    return f"{provider.name!r}: {len(names):,} of {n_tasks} {why} and are left out: {listed(names)}"


def splits_of(task: seqio.Task) -> list[str]:
    """Return the splits of a task.

    Raises:
        UserError: Its source raises an exception.
    """
    with of_users_code(f"task {task.name!r}, the splits of its source"):
        return list(task.splits)


def tasks_of(provider: seqio.Task | seqio.Mixture, split: str, field: str) -> list[seqio.Task]:
    """Return the tasks that are read, as `select_tasks` does."""
    return select_tasks(provider, split, field).tasks
