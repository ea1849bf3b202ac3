"""The metrics of T5's tasks (arXiv:1910.10683), in [0, 1]. The paper multiplies them by 100.

Each is a function of (targets, predictions). The target of an example is a text or its references:
the accepted answers, of which the first one is the target of the record. A reference that begins
with `TAG` is a note for the metric (see `tasks.t5.formats`). A prediction that is no label is wrong
in every metric.
"""

import collections
import functools
import itertools
import math
import re
import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from ift_jax.metrics import reference_metric
from tasks.t5.formats import TAG

Target = str | Sequence[str]
_INVALID = -1.0  # The score in STS-B of a prediction that is no number, as in T5.


def _accepted(target: Target) -> list[str]:
    texts = [target] if isinstance(target, str) else target
    return [text for text in texts if not text.startswith(TAG)]


def _first(target: Target) -> str:
    return _accepted(target)[0].strip()


def _tag(target: Target, name: str) -> str:
    start = f"{TAG}{name}="
    return next(text.removeprefix(start) for text in target if text.startswith(start))


def _pairs(targets: Sequence[Target], predictions: Sequence[str]) -> list[tuple[str, str]]:
    """Return each example's first accepted answer and prediction, without space around them.

    Raises:
        ValueError: There are no examples, or not as many targets as predictions.
    """
    if len(targets) != len(predictions) or not targets:
        raise ValueError(f"{len(targets)} targets and {len(predictions)} predictions")
    return [(_first(t), p.strip()) for t, p in zip(targets, predictions, strict=True)]


@reference_metric
def accuracy(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """Return the fraction of predictions that equal the target, letter for letter."""
    pairs = _pairs(targets, predictions)
    return {"accuracy": sum(t == p for t, p in pairs) / len(pairs)}


@reference_metric
def matthews(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """Return the Matthews correlation over all labels that occur (CoLA).

    All predictions that are no label count as labels of their own.
    """
    pairs = _pairs(targets, predictions)
    count = len(pairs)
    right = sum(target == prediction for target, prediction in pairs)
    target_counts = collections.Counter(target for target, _ in pairs)
    predicted_counts = collections.Counter(prediction for _, prediction in pairs)
    by_chance = sum(target_counts[label] * predicted_counts[label] for label in target_counts)
    covariance = right * count - by_chance
    predicted_spread = count**2 - sum(n * n for n in predicted_counts.values())
    target_spread = count**2 - sum(n * n for n in target_counts.values())
    spread = predicted_spread * target_spread
    return {"matthews": covariance / math.sqrt(spread) if spread else 0.0}


@reference_metric
def f1(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """Return the F1 of the positive label (MRPC, QQP).

    The negative label is "False" or begins with "not_". A prediction that is neither label counts
    as the wrong one, as in T5.
    """
    pairs = _pairs(targets, predictions)
    labels = {target for target, _ in pairs}
    negative = next(
        (label for label in labels if label == "False" or label.startswith("not_")), None
    )
    hits = sum(target == prediction != negative for target, prediction in pairs)
    # Each wrong prediction is a false positive or a false negative.
    wrong = sum(target != prediction for target, prediction in pairs)
    return {"f1": 2 * hits / (2 * hits + wrong) if hits else 0.0}


@reference_metric
def mean_class_f1(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """Return the mean F1 of CB's three labels; 0 for a label that is never right nor predicted."""
    pairs = _pairs(targets, predictions)
    scores = []
    for label in ("entailment", "contradiction", "neutral"):
        hits = sum(target == prediction == label for target, prediction in pairs)
        total = sum((target == label) + (prediction == label) for target, prediction in pairs)
        scores.append(2 * hits / total if total else 0.0)
    return {"mean_class_f1": sum(scores) / len(scores)}


@reference_metric
def correlations(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """Return Pearson's and Spearman's correlation (STS-B).

    A prediction that is no number counts as -1. Where all predictions or all targets are equal,
    the correlation is undefined, and 0 is returned.
    """
    pairs = _pairs(targets, predictions)
    x = np.array([_number(target) for target, _ in pairs])
    y = np.array([_number(prediction) for _, prediction in pairs])
    return {"pearson": _pearson(x, y), "spearman": _pearson(_ranks(x), _ranks(y))}


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return _INVALID
    return value if math.isfinite(value) else _INVALID


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    x = x - x.mean()
    y = y - y.mean()
    norm = math.sqrt(float((x @ x) * (y @ y)))
    return float(x @ y) / norm if norm else 0.0


def _ranks(x: np.ndarray) -> np.ndarray:
    """Return the ranks of the values, from 1. Equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]


@reference_metric
def multirc(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """Return the F1 over all answers, and the fraction of questions whose answers are all right."""
    is_right: dict[str, bool] = {}
    for target, (truth, prediction) in zip(targets, _pairs(targets, predictions), strict=True):
        question = _tag(target, "question")
        is_right[question] = is_right.get(question, True) and truth == prediction
    score = f1(targets, predictions)["f1"]
    return {"multirc_f1": score, "multirc_em": sum(is_right.values()) / len(is_right)}


_DETERMINERS = frozenset(
    "a an few her his each every many much my our some that the their these this those which "
    "whose your".split()
)


@reference_metric
def wsc_accuracy(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """Return how often "the prediction is the referent" agrees with the label (WSC, WNLI)."""
    right = 0
    for target, (referent, prediction) in zip(targets, _pairs(targets, predictions), strict=True):
        right += str(_same_noun(prediction, referent)) == _tag(target, "label")
    return {"accuracy": right / len(targets)}


def _same_noun(prediction: str, referent: str) -> bool:
    """Return whether two nouns are the same by T5's rule.

    Without regard to case and determiners, the words of one are among the words of the other, and
    both or neither have an apostrophe.
    """
    said = _content_words(prediction)
    asked = _content_words(referent)
    if not said or not (said <= asked or asked <= said):
        return False
    return ("'" in prediction) == ("'" in referent)


def _content_words(text: str) -> set[str]:
    return {word for word in text.lower().split() if word not in _DETERMINERS}


@reference_metric
def squad(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """Return SQuAD's exact match and F1 over words, each for the best of the references."""
    _pairs(targets, predictions)  # Raises where there is nothing to compare.
    exact = []
    f1s = []
    for target, prediction in zip(targets, predictions, strict=True):
        answer = _squad_words(prediction)
        references = [_squad_words(text) for text in _accepted(target)]
        exact.append(float(answer in references))
        f1s.append(max(_word_f1(reference, answer) for reference in references))
    return {"em": sum(exact) / len(exact), "f1": sum(f1s) / len(f1s)}


def _squad_words(text: str) -> list[str]:
    """Return the words in lower case, without punctuation and articles."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def _word_f1(target: list[str], answer: list[str]) -> float:
    common = collections.Counter(target) & collections.Counter(answer)
    hits = common.total()
    return 2 * hits / (len(target) + len(answer)) if hits else 0.0


_ROUGE_TYPES = ["rouge1", "rouge2", "rougeLsum"]


@reference_metric
def rouge(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """Return ROUGE-1, ROUGE-2 and ROUGE-Lsum, as F-measures without a stemmer (CNN / Daily Mail).

    Sentences end at " . ", as in T5. T5 returns the middle of a bootstrap, which differs from call
    to call; this is the mean that the bootstrap estimates.
    """
    sums = dict.fromkeys(_ROUGE_TYPES, 0.0)
    for target, prediction in _pairs(targets, predictions):
        scores = _rouge_scorer().score(_sentence_lines(target), _sentence_lines(prediction))
        for name in _ROUGE_TYPES:
            sums[name] += scores[name].fmeasure
    return {name: total / len(targets) for name, total in sums.items()}


def _sentence_lines(text: str) -> str:
    """Return the text with a line for each sentence, as ROUGE-Lsum expects it."""
    return text.replace(" . ", " .\n")


@functools.cache
def _rouge_scorer() -> Any:
    from rouge_score import rouge_scorer  # Imported here because it pulls in nltk.

    return rouge_scorer.RougeScorer(_ROUGE_TYPES)


@reference_metric
def bleu(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """Return the corpus BLEU-4 of sacreBLEU (Post 2018, arXiv:1804.08771), in [0, 1].

    The signature is that of T5, "intl, exp, mixed case": words by mteval-v14's international
    tokenization; an n-gram order without a match counts as half of a match, the next one as a
    quarter, and so on.
    """
    import sacrebleu  # Imported here because only translation needs it.

    _pairs(targets, predictions)  # Raises where there is nothing to compare.
    # The k-th stream holds the k-th reference of every example, None where there are fewer.
    streams = [list(stream) for stream in itertools.zip_longest(*map(_accepted, targets))]
    result = sacrebleu.corpus_bleu(list(predictions), streams, smooth_method="exp", tokenize="intl")
    return {"bleu": result.score / 100}
