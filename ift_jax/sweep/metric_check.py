"""Checks `--metric` of a sweep before its first run, as far as a config tells what a run scores."""

from collections.abc import Iterable, Sequence

from ift_jax.config.schema import Config
from ift_jax.errors import UserError, did_you_mean, offered
from ift_jax.evaluation.known_metrics import OF_EVERY_TASK, known_metrics
from ift_jax.evaluation.score_table import SET_TITLES
from ift_jax.sweep.results import LOSSES, SECONDS

_EXPECTED = (
    f"expected {', '.join((*LOSSES, SECONDS))}, or SET/METRIC or SET/CLUSTER/METRIC with "
    f"{' or '.join(SET_TITLES)} as SET, such as heldout/exact_match"
)


def check_metrics(names: Iterable[str], configs: Sequence[Config]) -> None:
    """Check that some run of a sweep will have each metric.

    The metrics of tasks are known if their stores are prepared, and if they need no SeqIO; any name
    passes for others.

    Args:
        names: The metrics that are asked for.
        configs: The configs of the runs.

    Raises:
        UserError: No run will have a metric; says why the first one will not.
    """
    for name in names:
        why = ""
        for config in configs:
            problem = _problem(name, config)
            if not problem:
                break
            why = why or problem
        else:
            raise UserError(f"--metric {name}: {why}")


def _problem(name: str, config: Config) -> str:
    """Return why a run will not have a metric; "" if it will, or may."""
    which, slash, metric = name.partition("/")
    if not slash:
        return _problem_of_loss(name, config)
    if which not in SET_TITLES or not metric:
        return _EXPECTED
    if which == "heldout" and not config.data.heldout_mixture:
        return "data.heldout_mixture is empty, so there are no held-out tasks"
    if not config.evaluation.examples:
        return "evaluation.examples is 0, so no answers are scored; set it, such as to 50"
    if which not in config.evaluation.sets:
        return f"evaluation.sets does not have {which!r}, so it is not scored"
    metrics, clusters = known_metrics(config, which)
    known = [
        f"{which}/{place}{metric}"
        for place in ("", *(f"{cluster}/" for cluster in clusters))
        for metric in metrics
    ]
    if not known or name in known:
        return ""
    return f"no run has it{offered(name, known)}"


def _problem_of_loss(name: str, config: Config) -> str:
    known = [*LOSSES, SECONDS]
    if name not in known:
        of_answers = [f"{which}/{metric}" for which in SET_TITLES for metric in OF_EVERY_TASK]
        hint = did_you_mean(name, [*known, *of_answers])
        return f"no run has it{hint or f'; {_EXPECTED}'}"
    if name == "heldout_loss" and not config.data.heldout_mixture:
        return "data.heldout_mixture is empty, so there is no such loss"
    return ""
