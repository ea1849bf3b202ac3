"""Metrics that several systems share: pure functions as `ift_jax.evaluation.metrics`."""

import functools
import re
import string
from collections.abc import Sequence
from typing import Any

from ift_jax.evaluation.metrics import Target, mean_best

_PUNCTUATION = str.maketrans("", "", string.punctuation)


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
