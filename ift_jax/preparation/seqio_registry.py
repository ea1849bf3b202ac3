"""SeqIO's registries: import task modules, and find the tasks of a mixture."""

import contextlib
import importlib
import os
from types import ModuleType
from typing import NamedTuple

import seqio
import tensorflow as tf

from ift_jax.config.systems import append_working_folder
from ift_jax.errors import UserError, did_you_mean

# TensorFlow would take the GPU memory that JAX needs. It raises a RuntimeError where its devices
# are in use already, which is then the user's wish.
with contextlib.suppress(RuntimeError):
    tf.config.set_visible_devices([], "GPU")


class _Registered(NamedTuple):
    root: str  # The data.root that `register` was called with.
    names: set[str]  # The tasks and mixtures that it registered.


_registered: dict[str, _Registered] = {}  # By the names of modules.


def import_modules(modules: tuple[str, ...], root: str) -> None:
    """Import modules that register tasks, and call `register(root)` of those that have it.

    Raises:
        UserError: A module cannot be found, or its `register` raises it.
    """
    append_working_folder()
    for name in modules:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            is_itself = name.startswith(error.name or name)
            why = "" if is_itself else f" (it imports {error.name!r})"
            raise UserError(
                f"data.modules: module {name!r} cannot be imported{why}; expected a module of "
                f"an installed package or of a folder on the Python path, such as {os.getcwd()}"
            ) from None
        if hasattr(module, "register"):
            _register(module, os.path.abspath(root) if root else "")


def _register(module: ModuleType, root: str) -> None:
    """Call `register(root)`, once for a root; what it registered for another root is removed."""
    before = _registered.get(module.__name__)
    if before is not None:
        if before.root == root and before.names <= _all_names():
            return
        for registry in (seqio.TaskRegistry, seqio.MixtureRegistry):
            for name in before.names & set(registry.names()):
                registry.remove(name)
    there = _all_names()
    module.register(root)
    _registered[module.__name__] = _Registered(root, _all_names() - there)


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
    if names:
        known = f"known: {', '.join(names[:20])}"
    else:
        known = (
            "nothing is registered: data.modules is empty or registers nothing, and the table of "
            "data.systems has no such name (is this the folder of the checkout?)"
        )
    hint = did_you_mean(name, names) or f"; {known}"
    raise UserError(f"{field}: no SeqIO task or mixture is called {name!r}{hint}")


def tasks_of(provider: seqio.Task | seqio.Mixture, split: str, field: str) -> list[seqio.Task]:
    """Return the tasks that have a split, sorted by name as SeqIO sorts them.

    Raises:
        UserError: None has it; names the config's `field` and the splits that there are.
    """
    tasks = seqio.get_subtasks(provider)
    having = [task for task in tasks if split in task.splits]
    if not having:
        splits = ", ".join(sorted({name for task in tasks for name in task.splits}))
        raise UserError(
            f"{field}: no task of {provider.name!r} has the split {split!r}; expected: {splits}"
        )
    return having
