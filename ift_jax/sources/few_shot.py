r"""In-context learning (Brown et al. 2020, arXiv:2005.14165): any text task as k-shot prompts.

Named after the modules of the tasks, `ift_jax.sources.few_shot` gives every text task that is
registered by then (records of `inputs` and `targets`) twins `<task>_1_shot`, `_5_shot` and so on
(`SHOTS` of `ift_jax.config.systems`; `_0_shot` is the question alone, with the same metrics), and
every mixture of such tasks a mixture of the twins:

    --config.data.modules="('tasks.quickstart.tasks', 'ift_jax.sources.few_shot')" \
    --config.data.heldout_mixture=quickstart_heldout_5_shot

A twin has exact match and the task's own metrics and postprocessor, on the answer up to its first
blank line. `few_shot_source` says how a prompt is made.
"""

import functools
from collections.abc import Sequence
from typing import Any

import seqio
import tensorflow as tf

from ift_jax.config.systems import SHOTS
from ift_jax.errors import UserError
from ift_jax.metrics import OnFirstBlock, exact_match, first_block, is_reference_metric
from ift_jax.sources.demonstrations import PromptLimit
from ift_jax.sources.few_shot_source import DEFAULT_LIMIT, FewShotSource
from ift_jax.sources.register import register_mixture, register_task

_SUFFIX = "_shot"


def register(root: str = "", shots: Sequence[int] = SHOTS) -> None:
    """Register the k-shot twins of every text task and mixture that is registered so far.

    Args:
        root: `data.root`, which is not needed: the tasks know where their data is.
        shots: The numbers of solved examples.
    """
    del root
    names = [name for name in seqio.TaskRegistry.names() if not name.endswith(_SUFFIX)]
    text_tasks = {name for name in names if _is_text(seqio.TaskRegistry.get(name))}
    for name in sorted(text_tasks):
        for k in shots:
            register_shots(name, k)
    for name in list(seqio.MixtureRegistry.names()):
        mixture = seqio.MixtureRegistry.get(name)
        members = [task.name for task in mixture.tasks]
        if name.endswith(_SUFFIX) or not set(members) <= text_tasks:
            continue
        for k in shots:
            twins = [(_twin(member, k), _rate(mixture, member)) for member in members]
            register_mixture(_twin(name, k), twins)


def register_shots(task_name: str, shots: int, limit: PromptLimit = DEFAULT_LIMIT) -> str:
    """Register `<task>_<shots>_shot`.

    Args:
        task_name: A registered text task.
        shots: Solved examples a prompt.
        limit: The longest prompt.

    Returns:
        The name of the twin.

    Raises:
        UserError: There is no such task, or it is not one of text.
    """
    if task_name not in seqio.TaskRegistry.names():
        raise UserError(f"no SeqIO task is called {task_name!r}")
    task = seqio.TaskRegistry.get(task_name)
    if not _is_text(task):
        raise UserError(f"task {task_name!r}: expected text, features inputs and targets")
    try:
        metrics = dict.fromkeys([exact_match, *task.metric_fns])
    except ValueError as error:  # A metric has other arguments than SeqIO's.
        raise UserError(f"task {task_name!r}: metric_fns: {error}") from error
    name = _twin(task_name, shots)
    register_task(
        name,
        FewShotSource(task, shots, limit=limit),
        metric_fns=[
            OnFirstBlock(metric) if is_reference_metric(metric) else metric for metric in metrics
        ],
        postprocess_fn=functools.partial(_postprocess_first_block, task),
    )
    return name


def _postprocess_first_block(
    task: seqio.Task, text: str, is_target: bool = False, **options: Any
) -> Any:
    """Postprocess a target, or the first block of an answer, as the task does."""
    given = text if is_target else first_block(text)
    return task.postprocess_fn(given, is_target=is_target, **options)


def _twin(name: str, shots: int) -> str:
    return f"{name}_{shots}{_SUFFIX}"


def _is_text(task: seqio.Task) -> bool:
    features = task.output_features
    if set(features) != {"inputs", "targets"}:
        return False
    return all(feature.dtype == tf.string for feature in features.values())


def _rate(mixture: seqio.Mixture, name: str) -> Any:
    """Return a twin's rate: the task's own, or its share in the mixture of a nested mixture."""
    if name in mixture.rate_per_task_name:
        return mixture.rate_per_task_name[name]

    def rate_of_the_task(twin: seqio.Task) -> float:
        return float(mixture.get_rate(seqio.TaskRegistry.get(name)))

    return rate_of_the_task
