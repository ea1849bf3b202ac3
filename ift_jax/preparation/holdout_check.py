"""Checks that what is held out is not trained on, under whatever name."""

from collections.abc import Sequence
from typing import NamedTuple

import seqio

from ift_jax.config.schema import DataConfig
from ift_jax.errors import UserError, listed
from ift_jax.preparation import seqio_registry
from ift_jax.sources.base import PythonDataSource


def check_config(data: DataConfig) -> None:
    """Check the training mixture of a run against its held-out mixture.

    Raises:
        UserError: As `check_holdout`, or a mixture is not registered.
    """
    if not data.mixture or not data.heldout_mixture:
        return
    trained = _tasks(data.mixture, data.split, "data.mixture")
    held_out = _tasks(data.heldout_mixture, data.heldout_split, "data.heldout_mixture")
    check_holdout(trained, held_out)


def _tasks(name: str, split: str, field: str) -> list[seqio.Task]:
    return seqio_registry.tasks_of(seqio_registry.resolve(name, field), split, field)


def check_holdout(trained: Sequence[seqio.Task], held_out: Sequence[seqio.Task]) -> None:
    """Check that no trained task is held out or made of data that is, by what the sources say.

    A source's `datasets` are the names of the data that it is made of, its `holds_out` those that
    must not be trained on where it is held out; see `ift_jax.sources.base.PythonDataSource`.

    Args:
        trained: The tasks to train on.
        held_out: The tasks that the run holds out.

    Raises:
        UserError: Names the tasks that must not be trained on.
    """
    held_out_by = {name: task.name for task in held_out for name in _names(task).holds_out}
    found = []
    for task in trained:
        shared = sorted(held_out_by.keys() & _names(task).datasets)
        if task.name in shared:
            found.append(task.name)
        elif shared:
            found.append(f"{task.name} ({shared[0]}, held out by {held_out_by[shared[0]]})")
    if found:
        raise UserError(
            f"data.heldout_mixture: what is held out cannot be trained on, but data.mixture has "
            f"{listed(found)}"
        )


class _Names(NamedTuple):
    datasets: frozenset[str]  # What a task is made of.
    holds_out: frozenset[str]  # What must not be trained on where it is held out.


def _names(task: seqio.Task) -> _Names:
    """Return the names of a task's data; a task is data of its own name, too."""
    source = task.source
    own = frozenset({task.name})
    if isinstance(source, PythonDataSource):
        return _Names(own | source.datasets, own | source.holds_out)
    if isinstance(source, seqio.TfdsDataSource):
        own |= {str(source.tfds_dataset.name).partition(":")[0]}
    return _Names(own, own)
