"""Metrics of generated text: pure functions of SeqIO's signature (targets, predictions).

A target is one accepted answer or a list of them; an example's score is the best over its
answers, the metric is the mean over examples, in [0, 1].
"""

import collections
import dataclasses
import functools
import importlib
import re
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Target = str | Sequence[str]
Metric = Callable[..., Mapping[str, float]]  # Of (targets, predictions).
_FIRST_BLOCK = "first_block:"
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """Share of predictions that equal an accepted answer, but for surrounding white space."""
    score = mean_best(targets, predictions, lambda t, p: float(t.strip() == p.strip()))
    return {"exact_match": score}


def majority_baseline(references: Sequence[Target]) -> float:
    """Exact match of the one answer that, given to every example, is right most often."""
    answers = [{text.strip() for text in _accepted(target)} for target in references]
    if not answers:
        raise ValueError("no examples")
    counts = collections.Counter(text for accepted in answers for text in accepted)
    return max(counts.values(), default=0) / len(answers)


def _accepted(target: Target) -> Sequence[str]:
    return [target] if isinstance(target, str) else target


def mean_best(
    targets: Sequence[Target], predictions: Sequence[str], score: Callable[[str, str], float]
) -> float:
    """The mean over the examples of each one's best score over its answers."""
    if len(targets) != len(predictions):
        raise ValueError(f"{len(targets)} targets but {len(predictions)} predictions")
    if not targets:
        raise ValueError("no examples")
    pairs = zip(map(_accepted, targets), predictions, strict=True)
    return sum(max((score(t, p) for t in texts), default=0.0) for texts, p in pairs) / len(targets)


def exact_match_normalized(
    targets: Sequence[Target], predictions: Sequence[str]
) -> dict[str, float]:
    """`exact_match` without regard to case, ASCII punctuation and runs of white space.

    Tk-Instruct's exact match (arXiv:2204.07705): SQuAD's normalisation, articles kept.
    """
    score = mean_best(targets, predictions, lambda t, p: float(normalize(t) == normalize(p)))
    return {"exact_match_normalized": score}


def rouge_l(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """ROUGE-L F-measure of the rouge_score package, with its stemmer.

    Its tokenizer knows ASCII letters and digits only: a text without them scores 0.
    """
    scorer = _rouge_scorer()
    score = mean_best(targets, predictions, lambda t, p: scorer.score(t, p)["rougeL"].fmeasure)
    return {"rouge_l": score}


def normalize(text: str) -> str:
    """Lower case, without ASCII punctuation, single spaces."""
    return re.sub(r"\s+", " ", text.lower().translate(_PUNCTUATION)).strip()


@functools.cache
def _rouge_scorer() -> Any:
    from rouge_score import rouge_scorer  # Here: it imports nltk.

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

    def __call__(
        self, targets: Sequence[Target], predictions: Sequence[str]
    ) -> Mapping[str, float]:
        return self.metric(targets, [first_block(text) for text in predictions])


def metric_name(metric: Metric) -> str | None:
    """Return the name by which `metric_by_name` finds a metric again in another process.

    Returns:
        "module:function", behind "first_block:" for an `OnFirstBlock`; None for a function that no
        name leads to, such as a lambda.
    """
    if isinstance(metric, OnFirstBlock):
        inner = metric_name(metric.metric)
        return inner and _FIRST_BLOCK + inner
    name = getattr(metric, "__qualname__", "")
    if not name or "<" in name:
        return None
    return f"{metric.__module__}:{name}"


def metric_by_name(name: str) -> Metric:
    """Return the metric of a `metric_name`. SeqIO's own metrics import TensorFlow here."""
    if name.startswith(_FIRST_BLOCK):
        return OnFirstBlock(metric_by_name(name.removeprefix(_FIRST_BLOCK)))
    module, _, function = name.partition(":")
    metric: Metric = getattr(importlib.import_module(module), function)
    return metric
