"""Metrics of generated text: pure functions with SeqIO's signature (targets, predictions).

A target is one accepted answer or a list of them. The score of an example is the best over its
answers; the metric is the mean over examples, in [0, 1]. `reference_metric` declares that a metric
takes such lists: SeqIO itself gives a metric one postprocessed target for each example.
"""

import collections
import dataclasses
import functools
import importlib
import math
import re
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

Target = str | Sequence[str]
Metric = Callable[..., Mapping[str, float]]  # A function of (targets, predictions).
_AnyMetric = TypeVar("_AnyMetric", bound=Callable[..., Any])
# Stands for the metrics of a task that only its SeqIO task knows; see `metric_names`.
SEQIO_METRICS = "seqio"
_FIRST_BLOCK = "first_block:"
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def reference_metric(metric: _AnyMetric) -> _AnyMetric:
    """Declare that a metric's targets are the lists of accepted answers of the examples.

    A metric without this mark is SeqIO's: its targets are what the task's `postprocess_fn` makes of
    the one target of each example.
    """
    metric.takes_references = True  # type: ignore[attr-defined]
    return metric


def is_reference_metric(metric: Callable[..., Any]) -> bool:
    """Return whether `reference_metric` marks a metric, or the function of a partial."""
    while isinstance(metric, functools.partial):
        metric = metric.func
    return bool(getattr(metric, "takes_references", False))


@reference_metric
def exact_match(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """Share of predictions that equal an accepted answer, except for surrounding white space."""

    def equal(target: str, prediction: str) -> float:
        return float(target.strip() == prediction.strip())

    return {"exact_match": mean_best(targets, predictions, equal)}


def majority_baseline(references: Sequence[Target]) -> float:
    """Exact match of the one answer that, given to every example, is right most often.

    Raises:
        ValueError: There are no examples.
    """
    if not references:
        raise ValueError("no examples")
    counts: collections.Counter[str] = collections.Counter()
    for target in references:
        counts.update({text.strip() for text in _accepted(target)})
    return max(counts.values(), default=0) / len(references)


def mean_best(
    targets: Sequence[Target], predictions: Sequence[str], score: Callable[[str, str], float]
) -> float:
    """Mean over the examples of each one's best score over its answers.

    Args:
        targets: The accepted answer or answers of each example; an example without any scores 0.
        predictions: The answer of each example.
        score: A function of one accepted answer and the prediction.

    Raises:
        ValueError: There are no examples, or not as many predictions as targets.
    """
    if len(targets) != len(predictions):
        raise ValueError(f"{len(targets)} targets but {len(predictions)} predictions")
    if not targets:
        raise ValueError("no examples")
    best = [
        max((score(text, prediction) for text in _accepted(target)), default=0.0)
        for target, prediction in zip(targets, predictions, strict=True)
    ]
    return sum(best) / len(targets)


def _accepted(target: Target) -> Sequence[str]:
    return [target] if isinstance(target, str) else target


@reference_metric
def exact_match_normalized(
    targets: Sequence[Target], predictions: Sequence[str]
) -> dict[str, float]:
    """`exact_match` regardless of case, ASCII punctuation and runs of white space.

    This is Tk-Instruct's exact match (arXiv:2204.07705): SQuAD's normalization, but with articles
    kept.
    """

    def equal(target: str, prediction: str) -> float:
        return float(normalize(target) == normalize(prediction))

    return {"exact_match_normalized": mean_best(targets, predictions, equal)}


@reference_metric
def rouge_l(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """ROUGE-L F-measure of the package rouge_score, with its stemmer.

    Its tokenizer knows only ASCII letters and digits: a text without them scores 0.
    """
    scorer = _rouge_scorer()

    def f_measure(target: str, prediction: str) -> float:
        return scorer.score(target, prediction)["rougeL"].fmeasure

    return {"rouge_l": mean_best(targets, predictions, f_measure)}


def normalize(text: str) -> str:
    """The text in lower case, without ASCII punctuation, with single spaces."""
    return re.sub(r"\s+", " ", text.lower().translate(_PUNCTUATION)).strip()


@functools.cache
def _rouge_scorer() -> Any:
    from rouge_score import rouge_scorer  # Imported on use, because it imports nltk.

    return rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)


def first_block(text: str) -> str:
    """Return an answer up to its first blank line."""
    return text.strip().split("\n\n", 1)[0]


@dataclasses.dataclass(frozen=True)
class OnFirstBlock:
    """A metric of the first blocks of the predictions.

    Few-shot prompts separate their examples by blank lines, and a model that was never tuned
    continues its answer with another example.

    Attributes:
        metric: The metric to apply to the first blocks.
    """

    metric: Metric

    @property
    def takes_references(self) -> bool:
        """Whether the targets are lists of accepted answers; see `reference_metric`."""
        return is_reference_metric(self.metric)

    def __call__(
        self, targets: Sequence[Target], predictions: Sequence[str]
    ) -> Mapping[str, float]:
        return self.metric(targets, [first_block(text) for text in predictions])


def metric_name(metric: Metric) -> str | None:
    """Return the name by which `metric_by_name` finds a metric again in another process.

    Returns:
        "module:function", with "first_block:" before it for an `OnFirstBlock`; None for a function
        that has no importable name, such as a lambda.
    """
    if isinstance(metric, OnFirstBlock):
        inner = metric_name(metric.metric)
        return inner and _FIRST_BLOCK + inner
    name = getattr(metric, "__qualname__", "")
    if not name or "<" in name:
        return None
    return f"{metric.__module__}:{name}"


def metric_names(metrics: Sequence[Metric]) -> list[str]:
    """Return the names of a task's metrics, or `SEQIO_METRICS` alone if they need the task.

    They do unless all of them take lists of accepted answers (`reference_metric`) and have names.
    """
    names = [metric_name(metric) if is_reference_metric(metric) else None for metric in metrics]
    named = [name for name in names if name is not None]
    return named if len(named) == len(names) else [SEQIO_METRICS]


def metric_by_name(name: str) -> Metric:
    """Return the metric of a `metric_name`."""
    if name.startswith(_FIRST_BLOCK):
        return OnFirstBlock(metric_by_name(name.removeprefix(_FIRST_BLOCK)))
    module, _, function = name.partition(":")
    metric: Metric = getattr(importlib.import_module(module), function)
    return metric


@dataclasses.dataclass(frozen=True)
class ModelOutput:
    """What a model gave for one example, as metrics need it.

    Attributes:
        index: The position of the example's record in its split.
        references: The accepted answers, the example's own target first.
        answer: The answer, without surrounding white space.
        answer_ids: Its ids, the stop token included.
        is_choice: Whether it is the likeliest of given choices, and not generated.
        answer_score: The log-likelihood of the answer; NaN unless a metric needs it.
        target_score: The log-likelihood of the target; NaN unless a metric needs it.
    """

    index: int
    references: tuple[str, ...]
    answer: str
    answer_ids: tuple[int, ...] = ()
    is_choice: bool = False
    answer_score: float = math.nan
    target_score: float = math.nan


class MetricCall(NamedTuple):
    """A metric that is ready to be computed.

    Attributes:
        name: What messages call it.
        compute: Returns its values by name; may raise whatever the metric raises.
        compute_one: Does the same for the one example with the given place among them; None if the
            metric cannot be computed like that.
    """

    name: str
    compute: Callable[[], Any]
    compute_one: Callable[[int], Any] | None = None
