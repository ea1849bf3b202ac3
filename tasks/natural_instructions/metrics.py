"""Metrics of Super-NaturalInstructions: a headline metric for each category, scores by category.

Wang et al. 2022 (arXiv:2204.07705) report ROUGE-L over all tasks, and for each category of the
test list the metric that suits it: exact match where the answer is one of a few choices, ROUGE-L
where it is a text.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ift_jax.metrics import Target, exact_match, exact_match_normalized, reference_metric, rouge_l

METRICS = (exact_match, exact_match_normalized, rouge_l)

_EXACT = "exact_match_normalized"  # Tk-Instruct's exact match normalizes the texts.
_ROUGE = "rouge_l"

# The 12 categories of the English test list -> their headline metrics.
HEADLINE: Mapping[str, str] = {
    "Textual Entailment": _EXACT,
    "Cause Effect Classification": _EXACT,
    "Coreference Resolution": _EXACT,
    "Dialogue Act Recognition": _EXACT,
    "Answerability Classification": _EXACT,
    "Word Analogy": _EXACT,
    "Overlap Extraction": _ROUGE,
    "Keyword Tagging": _ROUGE,
    "Question Rewriting": _ROUGE,
    "Title Generation": _ROUGE,
    "Data to Text": _ROUGE,
    "Grammar Error Correction": _ROUGE,
}


class Category(NamedTuple):
    """A task's category and its headline metric."""

    name: str
    headline: str


def category(name: str) -> Category:
    """Return a category with its headline metric: ROUGE-L outside the paper's twelve."""
    return Category(name or "Unknown", HEADLINE.get(name, _ROUGE))


def by_category(
    scores: Mapping[str, Mapping[str, Any]], categories: Mapping[str, Category]
) -> dict[str, dict[str, Any]]:
    """Group the scores of an evaluation's tasks by category.

    Args:
        scores: Task -> its metrics and "examples", as from `ift_jax.evaluation.evaluate.evaluate`.
            Tasks without a category are left out.
        categories: The tasks' categories, from `tasks.natural_instructions.tasks.categories`.

    Returns:
        Category -> {"tasks", "examples", "headline" (the metric's name), "score" (its mean over the
        category's instances), and the means of all metrics}, and "overall" with the means over all
        instances, as the official script computes them.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    headlines = {}
    for task, values in scores.items():
        if task in categories:
            name, headline = categories[task]
            groups.setdefault(name, []).append(values)
            headlines[name] = headline
    result = {name: _summary(groups[name], headlines[name]) for name in sorted(groups)}
    if groups:
        everything = [values for group in groups.values() for values in group]
        result["overall"] = _summary(everything, _ROUGE)
    return result


def _summary(group: Sequence[Mapping[str, Any]], headline: str) -> dict[str, Any]:
    means = _means(group)
    score = means.get(headline)
    return {"tasks": len(group), **means, "headline": headline, "score": score}


def _means(group: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the number of examples, and each metric's mean over the examples that have it."""
    means: dict[str, Any] = {"examples": sum(values["examples"] for values in group)}
    metrics = {key for values in group for key in values} - {"examples"}
    for metric in metrics:
        having = [values for values in group if metric in values]
        total = sum(values[metric] * values["examples"] for values in having)
        means[metric] = total / sum(values["examples"] for values in having)
    return means


@reference_metric
def rouge_l_xlingual(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """Compute the ROUGE-L F-measure of texts in any script, without a stemmer.

    Tk-Instruct splits the texts of the cross-lingual track with GPT-2's tokenizer. Here a token
    is a run of letters or of digits, or a single other character; in scripts that are written
    without spaces each letter is a token. The scores are therefore close to Tk-Instruct's, but not
    equal.
    """
    scorer = _scorer()
    total = 0.0
    for target, prediction in zip(targets, predictions, strict=True):
        accepted = [target] if isinstance(target, str) else target
        scores = [scorer.score(text, prediction)["rougeL"].fmeasure for text in accepted]
        total += max(scores, default=0.0)
    if not targets:
        raise ValueError("no examples")
    return {"rouge_l_xlingual": total / len(targets)}


# Thai to Myanmar, Khmer, kana, and CJK ideographs, those of the supplementary planes included.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff"
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W\d_{_UNSPACED}]+|\d+|[^\w\s]|_")


class _Tokenizer:
    """The interface that `rouge_score` expects of a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        return _TOKEN.findall(text.lower())


@functools.cache
def _scorer() -> Any:
    from rouge_score import rouge_scorer  # Imported late because it imports nltk.

    return rouge_scorer.RougeScorer(["rougeL"], tokenizer=_Tokenizer())


XLINGUAL_METRICS = (exact_match, exact_match_normalized, rouge_l_xlingual)
