"""What is held out must not be trained on, under whatever name."""

from collections.abc import Sequence

import seqio

from ift_jax.config.schema import DataConfig
from ift_jax.errors import UserError
from ift_jax.preparation import seqio_registry
from ift_jax.sources.base import PythonDataSource

_SHOWN = 5


def check_config(data: DataConfig) -> None:
    """Refuses a run that trains on what it holds out.

    Raises:
      UserError: as `check_leaks`, or a mixture is not registered.
    """
    if data.mixture and data.heldout_mixture:
        trained, held_out = (
            seqio_registry.tasks_of(seqio_registry.resolve(name, field), split, field)
            for name, split, field in (
                (data.mixture, data.split, "data.mixture"),
                (data.heldout_mixture, data.heldout_split, "data.heldout_mixture"),
            )
        )
        check_leaks(trained, held_out)


def check_leaks(trained: Sequence[seqio.Task], held_out: Sequence[seqio.Task]) -> None:
    """Refuses tasks to train on that are held out, or made of data that is: by what sources tell.

    A source's `datasets` are names of the data that it is made of, its `holds_out` those that must
    not be trained on where it is held out: see `ift_jax.sources.base.PythonDataSource`.

    Raises:
      UserError: names the tasks.
    """
    forbidden = {name: task.name for task in held_out for name in _names(task)[1]}
    leaks = []
    for task in trained:
        found = sorted(forbidden.keys() & _names(task)[0])
        if task.name in found:
            leaks.append(task.name)
        elif found:
            leaks.append(f"{task.name} ({found[0]}, held out by {forbidden[found[0]]})")
    if leaks:
        more = f" and {len(leaks) - _SHOWN} more" if len(leaks) > _SHOWN else ""
        shown = ", ".join(leaks[:_SHOWN]) + more
        raise UserError(
            f"data.heldout_mixture: what is held out cannot be trained on, but data.mixture has "
            f"{shown}"
        )


def _names(task: seqio.Task) -> tuple[frozenset[str], frozenset[str]]:
    """What a task is made of, and what it holds out."""
    source, own = task.source, frozenset({task.name})
    if isinstance(source, PythonDataSource):
        return own | source.datasets, own | source.holds_out
    if isinstance(source, seqio.TfdsDataSource):
        own |= {str(source.tfds_dataset.name).partition(":")[0]}
    return own, own
