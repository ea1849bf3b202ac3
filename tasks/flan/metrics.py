"""The metrics of FLAN's data sets: T5's, applied to FLAN's labels. In [0, 1], or words edited.

Where a data set of FLAN is one of T5's too, its metric is that of `tasks.t5.metrics`; here are
those that look at FLAN's own labels, and those that T5's tasks do not use.
"""

import collections
import re
import string
from collections.abc import Iterable, Sequence

from ift_jax.metrics import mean_best, reference_metric
from tasks.t5.metrics import rouge

Target = str | Sequence[str]
_CB = ("Yes", "No", "It's impossible to say")
_TRIVIA_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation + "‘’´`_", " "))


def _pairs(targets: Sequence[Target], predictions: Sequence[str]) -> list[tuple[str, str]]:
    """Return each example's first accepted answer and prediction, without space around them.

    Raises:
        ValueError: There are no examples, or not as many targets as predictions.
    """
    if len(targets) != len(predictions) or not targets:
        raise ValueError(f"{len(targets)} targets and {len(predictions)} predictions")
    firsts = [target if isinstance(target, str) else target[0] for target in targets]
    return [(t.strip(), p.strip()) for t, p in zip(firsts, predictions, strict=True)]


@reference_metric
def f1(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """Return the F1 of "yes" (MRPC, QQP, MultiRC).

    A prediction that is neither "yes" nor "no" counts as the wrong one, as in T5.
    """
    pairs = _pairs(targets, predictions)
    hits = sum(target == prediction == "yes" for target, prediction in pairs)
    # Each wrong prediction is a false positive or a false negative.
    wrong = sum(target != prediction for target, prediction in pairs)
    return {"f1": 2 * hits / (2 * hits + wrong) if hits else 0.0}


@reference_metric
def mean_class_f1(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """Return the mean F1 of CB's three labels; 0 for a label that is never right nor predicted."""
    pairs = _pairs(targets, predictions)
    scores = []
    for label in _CB:
        hits = sum(target == prediction == label for target, prediction in pairs)
        total = sum((target == label) + (prediction == label) for target, prediction in pairs)
        scores.append(2 * hits / total if total else 0.0)
    return {"mean_class_f1": sum(scores) / len(scores)}


@reference_metric
def trivia_qa(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """Return TriviaQA's exact match and F1 over words, each for the best of the references."""

    def equal(target: str, prediction: str) -> float:
        return float(_trivia_words(target) == _trivia_words(prediction))

    def word_f1(target: str, prediction: str) -> float:
        wanted = _trivia_words(target)
        given = _trivia_words(prediction)
        hits = (collections.Counter(wanted) & collections.Counter(given)).total()
        return 2 * hits / (len(wanted) + len(given)) if hits else 0.0

    return {
        "em": mean_best(targets, predictions, equal),
        "f1": mean_best(targets, predictions, word_f1),
    }


def _trivia_words(text: str) -> list[str]:
    """Return the words in lower case, without punctuation and articles."""
    return re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_TRIVIA_PUNCTUATION)).split()


@reference_metric
def best_rouge(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """Return ROUGE-1, ROUGE-2 and ROUGE-Lsum, each for the best of the references.

    FLAN takes this from BIG-bench for the data sets of GEM.
    """
    _pairs(targets, predictions)  # Raises where there is nothing to compare.
    best: list[dict[str, float]] = []
    for target, prediction in zip(targets, predictions, strict=True):
        references = [target] if isinstance(target, str) else target
        scores = [rouge([reference], [prediction]) for reference in references]
        best.append({name: max(of_one[name] for of_one in scores) for name in scores[0]})
    return {name: sum(of_one[name] for of_one in best) / len(best) for name in best[0]}


@reference_metric
def edit_distance(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """Return the mean number of words that are inserted, deleted or replaced: 0 is the best.

    As in T5, case does not count, and words end at every character that is not a letter, a digit
    or "_"; so this tells nothing of true-casing or punctuation, for which there is exact match.
    """
    distances = [
        _distance(_words(target), _words(prediction))
        for target, prediction in _pairs(targets, predictions)
    ]
    return {"mean_edit": sum(distances) / len(distances)}


def _words(text: str) -> list[str]:
    return re.split(r"[^\w]", text.lower())


def _distance(source: Sequence[str], target: Iterable[str]) -> int:
    """Return Levenshtein's distance."""
    row = list(range(len(source) + 1))
    for i, wanted in enumerate(target, 1):
        diagonal, row[0] = row[0], i
        for j, word in enumerate(source, 1):
            replaced = diagonal + (word != wanted)
            diagonal = row[j]
            row[j] = min(replaced, row[j] + 1, row[j - 1] + 1)
    return row[-1]
