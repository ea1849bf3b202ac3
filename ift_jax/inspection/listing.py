"""What there is to inspect: the systems' mixtures, and the split that a mixture is shown by.

The import of this module imports SeqIO and TensorFlow.
"""

import dataclasses
from collections.abc import Iterator, Mapping

from ift_jax.config.schema import DataConfig
from ift_jax.config.systems import modules_of, systems_table
from ift_jax.errors import UserError
from ift_jax.preparation.tensorflow_import import quiet_tensorflow_import
from ift_jax.text.rows.parse_record import RowOptions

with quiet_tensorflow_import():
    import seqio

    from ift_jax.preparation import seqio_registry

_TASKS_SHOWN = 12  # The tasks of a system that has no more of them are listed, too.
_SPLITS = ("train", "all", "validation", "test")  # The first that there is, is shown.


def lines(data: DataConfig) -> Iterator[str]:
    """Yield each system's module and the names that it registers, or what data it needs."""
    systems = systems_table(data.systems)
    modules = dict.fromkeys([*data.modules, *sorted(systems.values())])
    if not modules:
        yield (
            f"no systems: there is no module {data.systems!r} with a table SYSTEMS here; call this "
            "in a checkout of ift_jax, or name your modules with --config.data.modules"
        )
    for module in modules:
        yield module
        try:
            seqio_registry.import_modules((module,), data.root, RowOptions.of(data))
        except UserError as error:
            yield f"  cannot be registered: {error}"
            continue
        for name in sorted(seqio.MixtureRegistry.names()):
            if _registers(systems, module, name):
                yield f"  {name}"
        names = sorted(seqio.TaskRegistry.names())
        tasks = [name for name in names if _registers(systems, module, name)]
        if len(tasks) <= _TASKS_SHOWN:
            yield from (f"  {name} (task)" for name in tasks)
        else:
            yield f"  and {len(tasks):,} tasks, from {tasks[0]} to {tasks[-1]}"


def _registers(systems: Mapping[str, str], module: str, name: str) -> bool:
    return name in seqio_registry.registered_by(module) or modules_of(systems, name) == (module,)


def with_split(data: DataConfig) -> DataConfig:
    """Return the data with the split to show: a mixture that is held out has no "train".

    Raises:
        UserError: The mixture is not registered, or the data that registering it needs is not
            there.
    """
    seqio_registry.import_modules(data.modules, data.root, RowOptions.of(data))
    provider = seqio_registry.resolve(data.mixture, "data.mixture")
    tasks = seqio.get_subtasks(provider)
    splits = {split for task in tasks for split in seqio_registry.splits_of(task)}
    split = next((name for name in _SPLITS if name in splits), min(splits))
    return dataclasses.replace(data, split=split)
