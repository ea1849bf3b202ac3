"""The metrics of T5's tasks (arXiv:1910.10683), in [0, 1] (the paper's are times 100).

Functions of (references, answers). An example's references are its accepted answers, the target
first; one that begins with `TAG` is a note (`tasks.t5.formats`). An answer that is no label is
wrong in every metric.
"""

import collections
import functools
import itertools
import math
import re
import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tasks.t5.formats import TAG

Target = str | Sequence[str]
_INVALID = -1.0  # What an answer that is no number counts as in STS-B.


def _accepted(target: Target) -> list[str]:
    texts = [target] if isinstance(target, str) else target
    return [text for text in texts if not text.startswith(TAG)]


def _first(target: Target) -> str:
    return _accepted(target)[0].strip()


def _tag(target: Target, name: str) -> str:
    start = f"{TAG}{name}="
    return next(text.removeprefix(start) for text in target if text.startswith(start))


def _pairs(targets: Sequence[Target], predictions: Sequence[str]) -> list[tuple[str, str]]:
    if len(targets) != len(predictions) or not targets:
        raise ValueError(f"{len(targets)} targets and {len(predictions)} predictions")
    return [(_first(t), p.strip()) for t, p in zip(targets, predictions, strict=True)]


def accuracy(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """Share of answers that are the target, letter for letter."""
    pairs = _pairs(targets, predictions)
    return {"accuracy": sum(t == p for t, p in pairs) / len(pairs)}


def matthews(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """Matthews correlation over all labels that occur, an invalid answer being one more (CoLA)."""
    pairs = _pairs(targets, predictions)
    n, right = len(pairs), sum(t == p for t, p in pairs)
    true, said = (collections.Counter(column) for column in zip(*pairs, strict=True))
    covariance = right * n - sum(true[k] * said[k] for k in true)
    spread = (n * n - sum(v * v for v in said.values())) * (
        n * n - sum(v * v for v in true.values())
    )
    return {"matthews": covariance / math.sqrt(spread) if spread else 0.0}


def f1(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """F1 of the positive label, which is "True" or does not begin with "not_" (MRPC, QQP).

    An answer that is neither label counts as the wrong one, as in T5.
    """
    pairs = _pairs(targets, predictions)
    labels = {t for t, _ in pairs}
    negative = next((t for t in labels if t == "False" or t.startswith("not_")), None)
    hits = sum(t == p != negative for t, p in pairs)
    wrong = sum(t != p for t, p in pairs)  # Each is a false positive or a false negative.
    return {"f1": 2 * hits / (2 * hits + wrong) if hits else 0.0}


def mean_class_f1(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """The mean of the F1 of CB's three labels; one that never occurs nor is given has 0."""
    pairs = _pairs(targets, predictions)
    scores = []
    for label in ("entailment", "contradiction", "neutral"):
        hits = sum(t == p == label for t, p in pairs)
        total = sum((t == label) + (p == label) for t, p in pairs)
        scores.append(2 * hits / total if total else 0.0)
    return {"mean_class_f1": sum(scores) / len(scores)}


def correlations(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """Pearson's and Spearman's correlation (STS-B); an answer that is no number counts as -1.

    Where all answers (or all targets) are equal a correlation is undefined; it is 0 then.
    """
    columns = zip(*_pairs(targets, predictions), strict=True)
    x, y = (np.array([_number(text) for text in column]) for column in columns)
    return {"pearson": _pearson(x, y), "spearman": _pearson(_ranks(x), _ranks(y))}


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return _INVALID
    return value if math.isfinite(value) else _INVALID


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    norm = math.sqrt(float((x @ x) * (y @ y)))
    return float(x @ y) / norm if norm else 0.0


def _ranks(x: np.ndarray) -> np.ndarray:
    """Ranks; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]


def multirc(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """F1 over all answers, and the share of questions all of whose answers are judged right."""
    groups: dict[str, bool] = {}
    for target, (truth, answer) in zip(targets, _pairs(targets, predictions), strict=True):
        question = _tag(target, "question")
        groups[question] = groups.get(question, True) and truth == answer
    score = f1(targets, predictions)["f1"]
    return {"multirc_f1": score, "multirc_em": sum(groups.values()) / len(groups)}


_DETERMINERS = frozenset(
    "a an few her his each every many much my our some that the their these this those which "
    "whose your".split()
)


def wsc_accuracy(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """How often "the answer is the referent" agrees with the label (WSC, WNLI).

    They agree as T5 has it: case and determiners aside, the words of one are among the words of
    the other, and both or neither have an apostrophe.
    """
    right = 0
    for target, (referent, answer) in zip(targets, _pairs(targets, predictions), strict=True):
        said, asked = _content(answer), _content(referent)
        same = bool(said) and (said <= asked or asked <= said)
        same = same and ("'" in answer) == ("'" in referent)
        right += str(same) == _tag(target, "label")
    return {"accuracy": right / len(targets)}


def _content(text: str) -> set[str]:
    return {word for word in text.lower().split() if word not in _DETERMINERS}


def squad(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """SQuAD's exact match and F1 over words, the best over the references."""
    _pairs(targets, predictions)
    em = [
        _best(t, p, lambda a, b: float(a == b)) for t, p in zip(targets, predictions, strict=True)
    ]
    f1s = [_best(t, p, _word_f1) for t, p in zip(targets, predictions, strict=True)]
    return {"em": sum(em) / len(em), "f1": sum(f1s) / len(f1s)}


def _best(target: Target, answer: str, score: Callable[[list[str], list[str]], float]) -> float:
    return max(score(_squad_words(text), _squad_words(answer)) for text in _accepted(target))


def _squad_words(text: str) -> list[str]:
    """Words in lower case, without punctuation and articles."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def _word_f1(target: list[str], answer: list[str]) -> float:
    common = sum((collections.Counter(target) & collections.Counter(answer)).values())
    return 2 * common / (len(target) + len(answer)) if common else 0.0


def rouge(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """ROUGE-1, ROUGE-2 and ROUGE-Lsum, F-measures without a stemmer (CNN / Daily Mail).

    Sentences are told apart by " . ", as in T5. T5 gives the middle of a bootstrap, which differs
    from call to call; this is the mean that it estimates.
    """
    scores: collections.Counter[str] = collections.Counter()
    for target, answer in _pairs(targets, predictions):
        lines = (text.replace(" . ", " .\n") for text in (target, answer))
        for name, score in _rouge_scorer().score(*lines).items():
            scores[name] += score.fmeasure
    return {name: scores[name] / len(targets) for name in ("rouge1", "rouge2", "rougeLsum")}


@functools.cache
def _rouge_scorer() -> Any:
    from rouge_score import rouge_scorer  # Here: it imports nltk.

    return rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeLsum"])


def bleu(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """Corpus BLEU-4 of sacreBLEU (Post 2018, arXiv:1804.08771), "intl, exp, mixed case", in [0, 1].

    As in T5: words of mteval-v14's international tokenisation; an order without a match counts as
    half of a match, the next one as a quarter, and so on.
    """
    import sacrebleu  # Here: only translation needs it.

    _pairs(targets, predictions)
    # One stream of references for each place; None where an example has fewer.
    streams = [list(stream) for stream in itertools.zip_longest(*map(_accepted, targets))]
    score = sacrebleu.corpus_bleu(
        list(predictions), streams, smooth_method="exp", tokenize="intl"
    ).score
    return {"bleu": score / 100}
