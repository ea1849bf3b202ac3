"""Registering SeqIO tasks and mixtures, once.

The one rule for a name that is registered already: the same data (`PythonDataSource.identity`) or
the same tasks make it a no-op, so that a module's `register` may be called again; others are an
error.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import seqio

from ift_jax.errors import UserError
from ift_jax.metrics import Metric
from ift_jax.sources.base import PythonDataSource
from ift_jax.sources.features import CHAT_FEATURES, TEXT_FEATURES
from ift_jax.sources.row_files_source import RowFilesSource


def register_task(
    name: str,
    source: PythonDataSource,
    *,
    metric_fns: Sequence[Metric] = (),
    postprocess_fn: Callable[..., Any] | None = None,
    preprocessors: Sequence[Callable[..., Any]] = (),
    output_features: Mapping[str, seqio.Feature] | None = None,
) -> seqio.Task:
    """Register a task, by default one whose examples are the records of its source.

    Args:
        name: The task's name.
        source: The records, of `inputs` and `targets` or of `messages`.
        metric_fns: Metrics of lists of accepted answers, such as those of `ift_jax.metrics` (see
            `ift_jax.metrics.reference_metric`), or SeqIO's.
        postprocess_fn: What SeqIO's metrics are given is postprocessed by it, as in `seqio.Task`.
        preprocessors: SeqIO preprocessors, for a task that tokenizes its own text.
        output_features: What the examples hold; by default the strings of a record.

    Returns:
        The task, which is the one of before where the same data was registered under this name.

    Raises:
        UserError: The name stands for other data.
    """
    if name in seqio.TaskRegistry.names():
        task = seqio.TaskRegistry.get(name)
        if not _same_data(task.source, source):
            raise UserError(f"task {name!r} is registered already, with other data")
        return task
    if output_features is None:
        output_features = CHAT_FEATURES if "messages" in source.fields else TEXT_FEATURES
    return seqio.TaskRegistry.add(
        name,
        source=source,
        preprocessors=list(preprocessors),
        output_features=output_features,
        metric_fns=list(metric_fns),
        postprocess_fn=postprocess_fn,
    )


def _same_data(old: seqio.DataSource, new: PythonDataSource) -> bool:
    if type(old) is not type(new):
        return False
    return bool(old.identity == new.identity)


def register_mixture(name: str, tasks: Sequence[Any]) -> None:
    """Register a mixture whose default rates are the tasks' numbers of examples.

    Args:
        name: The mixture's name.
        tasks: Names of tasks or mixtures, or pairs of a name and a rate, as SeqIO takes them.

    Raises:
        UserError: The name stands for a mixture of other tasks.
    """
    if name in seqio.MixtureRegistry.names():
        names = {task if isinstance(task, str) else task[0] for task in tasks}
        if set(seqio.MixtureRegistry.get(name).rate_per_task_name) != names:
            raise UserError(f"mixture {name!r} is registered already, with other tasks")
        return
    seqio.MixtureRegistry.add(name, tasks, default_rate=seqio.mixing_rate_num_examples)


def register_rows_task(
    name: str,
    files: Mapping[str, str | Sequence[str]],
    *,
    inputs: str = "",
    targets: str = "",
    messages: str = "",
    metric_fns: Sequence[Metric] = (),
) -> seqio.Task:
    """Register a task that reads rows of files: JSON lines, a JSON array, Parquet, or Arrow.

    Args:
        name: The task's name.
        files: Split -> path, glob pattern, or several of them, such as {"train": "data/*.jsonl"}.
            Without a "validation" split 5% of "train" become one.
        inputs: The file's name for the input; with `targets`.
        targets: The file's name for the answer.
        messages: The file's name for the messages of a conversation. Without any of the three the
            fields of the first row say what rows are (`ift_jax.text.rows.shapes`).
        metric_fns: As for `register_task`.

    Raises:
        UserError: A file is missing or the name stands for other data.
    """
    keys = {"inputs": inputs, "targets": targets, "messages": messages}
    fields = {field: key for field, key in keys.items() if key}
    source = RowFilesSource(files, fields, carve_validation="train" in files)
    return register_task(name, source, metric_fns=metric_fns)


def task_name(text: str) -> str:
    """Return a valid SeqIO task name: characters other than letters, digits, _ and . become _."""
    return re.sub(r"[^\w.]", "_", text)
