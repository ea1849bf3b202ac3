"""The tasks of `ift train --data`, one for each item (`ift_jax.config.data_items`).

`register(root)` also registers the mixture "data" of them all: by the items' weights, or by their
numbers of examples. Where no file of an item is for validation, one row in twenty of "train" is.
"""

from ift_jax.config.data_items import MIXTURE, Item, parse
from ift_jax.metrics import exact_match, rouge_l
from ift_jax.sources.register import register_mixture, register_task, task_name
from ift_jax.sources.row_files_source import sources_of_a_mixture
from ift_jax.text.rows.parse_record import AUTOMATIC, RowOptions


def register(root: str, row_options: RowOptions = AUTOMATIC) -> tuple[str, ...]:
    """Registers a task for each item of `root`, and the mixture "data"; returns the tasks' names.

    Raises:
        UserError: As `parse`.
    """
    items = parse(root)
    sources = sources_of_a_mixture((item.files for item in items), row_options)
    names = _names(items)
    for name, source in zip(names, sources, strict=True):
        register_task(name, source, metric_fns=[exact_match, rouge_l])
    if items[0].weight is None:
        register_mixture(MIXTURE, names)
    else:
        rates = [(name, item.weight) for name, item in zip(names, items, strict=True)]
        register_mixture(MIXTURE, rates)
    return tuple(names)


def _names(items: list[Item]) -> list[str]:
    """A name for the task of each item; a number tells those of equal names apart."""
    names: list[str] = []
    for item in items:
        name = f"data_{task_name(item.name)}"
        if name in names:
            name = f"{name}_{len(names)}"
        names.append(name)
    return names
