"""Metrics against hand-counted values and a slow longest common subsequence."""

import itertools

import pytest

from ift_jax.metrics import (
    OnFirstBlock,
    exact_match,
    exact_match_normalized,
    majority_baseline,
    metric_by_name,
    metric_name,
    normalize,
    rouge_l,
)


def test_exact_match_is_the_mean_of_the_best_over_references():
    targets = ["Oslo", ["4", "four"], ["no"], "Rome "]
    predictions = [" Oslo\n", "four", "yes", "rome"]
    assert exact_match(targets, predictions) == {"exact_match": 0.5}
    assert exact_match_normalized(targets, predictions) == {"exact_match_normalized": 0.75}


def test_normalization_keeps_articles_and_drops_punctuation():
    assert normalize(" The  U.S.A.,\tnow! ") == "the usa now"
    assert exact_match_normalized(["the cat"], ["cat"])["exact_match_normalized"] == 0.0


def _lcs(a: list[str], b: list[str]) -> int:
    """Longest common subsequence by trying all subsequences of `a`."""
    for n in range(len(a), 0, -1):
        for chosen in itertools.combinations(a, n):
            rest = iter(b)
            if all(word in rest for word in chosen):
                return n
    return 0


@pytest.mark.parametrize(
    ("target", "prediction"),
    [("a b c d", "a c b d"), ("a b c", "c b a"), ("red dog here", "the red old dog"), ("a", "b")],
)
def test_rouge_l_is_the_f_measure_of_the_longest_common_subsequence(target, prediction):
    lcs = _lcs(target.split(), prediction.split())
    # F = 2PR/(P+R) with P = lcs/|prediction| and R = lcs/|target|.
    expected = 2 * lcs / (len(target.split()) + len(prediction.split()))
    assert rouge_l([target], [prediction])["rouge_l"] == pytest.approx(expected)


def test_rouge_l_stems_and_takes_the_best_reference():
    assert rouge_l(["running dogs"], ["run dog"])["rouge_l"] == pytest.approx(1.0)
    assert rouge_l([["x y", "a b"], "c"], ["a b", "d"])["rouge_l"] == pytest.approx(0.5)


def test_majority_baseline_counts_an_answer_once_an_example():
    assert majority_baseline(["yes", "no", "yes ", "maybe"]) == 0.5
    assert majority_baseline([["a", "b", "b"], ["b"], "c", "c"]) == 0.5


@pytest.mark.parametrize("metric", [exact_match, exact_match_normalized, rouge_l])
def test_unequal_or_empty_lists_are_errors(metric):
    with pytest.raises(ValueError, match="1 targets but 2 predictions"):
        metric(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="no examples"):
        metric([], [])


@pytest.mark.parametrize("metric", [exact_match, OnFirstBlock(rouge_l)])
def test_a_metric_is_found_again_by_its_name(metric):
    assert metric_by_name(metric_name(metric)) == metric


def test_a_metric_that_no_name_leads_to_has_none():
    def local(targets, predictions):
        return {}

    assert metric_name(local) is None and metric_name(OnFirstBlock(local)) is None
    with pytest.raises(AttributeError, match="nothing"):
        metric_by_name("ift_jax.metrics:nothing")


def test_the_first_block_ends_at_a_blank_line():
    metric = OnFirstBlock(exact_match)
    assert metric(["9", "4"], ["\n9\n\n5?\n25", "5"]) == {"exact_match": 0.5}
