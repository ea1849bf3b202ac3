"""Registering tasks that know no tokenizer."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import seqio

from ift_jax.errors import UserError
from ift_jax.sources.base import PythonDataSource
from ift_jax.sources.features import CHAT_FEATURES, TEXT_FEATURES
from ift_jax.sources.jsonl import JsonLinesDataSource

MetricFn = Callable[..., Mapping[str, float]]


def register_task(
    name: str, source: PythonDataSource, *, metric_fns: Sequence[MetricFn] = ()
) -> seqio.Task:
    """Registers a task whose records are text: `inputs` and `targets`, or `messages`.

    The same name again is no error with the same source: `register` may be called again.
    """
    if name in seqio.TaskRegistry.names():
        task = seqio.TaskRegistry.get(name)
        if _identity(task.source) != _identity(source):
            raise UserError(f"task {name!r} is registered already, with other data")
        return task
    features = CHAT_FEATURES if "messages" in source.fields else TEXT_FEATURES
    return seqio.TaskRegistry.add(
        name, source=source, preprocessors=[], output_features=features, metric_fns=list(metric_fns)
    )


def _identity(source: seqio.DataSource) -> Any:
    if not isinstance(source, PythonDataSource):
        return None
    splits = sorted(source.splits)
    return type(source), [(s, source.files(s), source.options(s)) for s in splits]


def register_mixture(name: str, tasks: Sequence[Any]) -> None:
    """Registers a mixture, unless the same one (by its tasks' names) exists already."""
    if name in seqio.MixtureRegistry.names():
        names = {task if isinstance(task, str) else task[0] for task in tasks}
        if set(seqio.MixtureRegistry.get(name).rate_per_task_name) != names:
            raise UserError(f"mixture {name!r} is registered already, with other tasks")
        return
    seqio.MixtureRegistry.add(name, tasks, default_rate=seqio.mixing_rate_num_examples)


def register_jsonl_task(
    name: str,
    files: Mapping[str, str | Sequence[str]],
    *,
    inputs: str = "",
    targets: str = "",
    messages: str = "",
    metric_fns: Sequence[MetricFn] = (),
) -> seqio.Task:
    """Registers a task that reads JSON lines.

    `files` is split -> path, glob pattern, or several, e.g. {"train": "data/train.jsonl.gz"};
    without a "validation" split 5% of "train" becomes one. `inputs` and `targets`, or `messages`,
    are the file's names of our fields; by default the first record decides, among the layouts that
    `JsonLinesDataSource` knows. `metric_fns` are functions of (targets, predictions), e.g. of
    `ift_jax.metrics` and `ift_jax.metrics`.
    """
    fields = {"inputs": inputs, "targets": targets, "messages": messages}
    given = {field: key for field, key in fields.items() if key}
    source = JsonLinesDataSource(files, given, carve_validation="train" in files)
    return register_task(name, source, metric_fns=metric_fns)


def task_name(text: str) -> str:
    """A valid SeqIO task name: other characters than letters, digits, _ . become _."""
    return re.sub(r"[^\w.]", "_", text)
