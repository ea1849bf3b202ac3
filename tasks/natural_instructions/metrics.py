"""Super-NaturalInstructions' metrics: each category's headline, and scores by category.

Wang et al. 2022 (arXiv:2204.07705) report ROUGE-L over everything, and for each category of the
test list the metric that suits it: exact match where the answer is one of a few, ROUGE-L where
it is a text.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ift_jax.metrics import Target, exact_match, exact_match_normalized, rouge_l

METRICS = (exact_match, exact_match_normalized, rouge_l)

# The 12 categories of the English test list. Tk-Instruct's exact match is the normalised one.
_EXACT, _ROUGE = "exact_match_normalized", "rouge_l"
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
    """A task's category and the metric that speaks for it."""

    name: str
    headline: str


def category(name: str) -> Category:
    """Returns the category with its headline; ROUGE-L outside the paper's twelve."""
    return Category(name or "Unknown", HEADLINE.get(name, _ROUGE))


def by_category(
    scores: Mapping[str, Mapping[str, Any]], categories: Mapping[str, Category]
) -> dict[str, dict[str, Any]]:
    """Groups an evaluation's scores of tasks by category.

    Args:
      scores: task -> its metrics and "examples", as `ift_jax.evaluation.evaluate.evaluate`
        gives them; tasks without a category are left out.
      categories: of `tasks.natural_instructions.tasks.categories`.

    Returns:
      category -> {"tasks", "examples", "headline" (the metric's name), "score" (its mean over
      the category's instances), and every other metric's mean}, and "overall" with the means
      over all instances, as the official script computes them.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for task, values in scores.items():
        if task in categories:
            groups.setdefault(categories[task].name, []).append(values)
    headlines = {c.name: c.headline for c in categories.values()}
    result = {}
    for name, group in sorted(groups.items()):
        means = _means(group)
        score = {"headline": headlines[name], "score": means.get(headlines[name])}
        result[name] = {"tasks": len(group)} | means | score
    everything = [values for group in groups.values() for values in group]
    if everything:
        means = _means(everything)
        result["overall"] = {"tasks": len(everything)} | means
        result["overall"] |= {"headline": _ROUGE, "score": means.get(_ROUGE)}
    return result


def _means(group: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    examples = sum(values["examples"] for values in group)
    means: dict[str, Any] = {"examples": examples}
    for metric in {key for values in group for key in values} - {"examples"}:
        having = [values for values in group if metric in values]
        weight = sum(values["examples"] for values in having)
        means[metric] = sum(values[metric] * values["examples"] for values in having) / weight
    return means


def rouge_l_xlingual(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """ROUGE-L F-measure for texts in any script, without a stemmer.

    Tk-Instruct cuts the texts of the cross-lingual track with GPT-2's tokenizer. Here a token
    is a run of letters or of digits, or a single other character; a letter of a script that
    writes no spaces is a token of its own. Figures are close, not equal.
    """
    scorer = _scorer()
    total = 0.0
    for target, prediction in zip(targets, predictions, strict=True):
        accepted = [target] if isinstance(target, str) else target
        scores = (scorer.score(text, prediction)["rougeL"].fmeasure for text in accepted)
        total += max(scores, default=0.0)
    if not targets:
        raise ValueError("no examples")
    return {"rouge_l_xlingual": total / len(targets)}


# Thai to Myanmar, Khmer, kana, CJK ideographs (also of the supplementary planes).
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff"
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W\d_{_UNSPACED}]+|\d+|[^\w\s]|_")


class _Tokenizer:
    def tokenize(self, text: str) -> list[str]:
        return _TOKEN.findall(text.lower())


@functools.cache
def _scorer() -> Any:
    from rouge_score import rouge_scorer  # Here: it imports nltk.

    return rouge_scorer.RougeScorer(["rougeL"], tokenizer=_Tokenizer())


XLINGUAL_METRICS = (exact_match, exact_match_normalized, rouge_l_xlingual)
