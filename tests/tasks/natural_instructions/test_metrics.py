"""Super-NaturalInstructions' headline metrics, scores by category, ROUGE-L in any script."""

import pytest

from tasks.natural_instructions.metrics import (
    HEADLINE,
    Category,
    by_category,
    category,
    rouge_l_xlingual,
)


def test_twelve_categories_half_of_each_kind():
    assert sorted(HEADLINE.values()) == ["exact_match_normalized"] * 6 + ["rouge_l"] * 6
    assert category("Textual Entailment") == ("Textual Entailment", "exact_match_normalized")
    assert category("Title Generation").headline == "rouge_l"
    assert category("Translation") == ("Translation", "rouge_l")  # Not in the test list.
    assert category("") == ("Unknown", "rouge_l")


def test_scores_are_means_over_instances():
    scores = {
        "a": {"examples": 100, "exact_match_normalized": 0.5, "rouge_l": 0.6},
        "b": {"examples": 50, "exact_match_normalized": 0.8, "rouge_l": 0.9},
        "c": {"examples": 50, "exact_match_normalized": 0.0, "rouge_l": 0.2},
        "d": {"examples": 9, "exact_match_normalized": 1.0, "rouge_l": 1.0},
    }
    entailment = category("Textual Entailment")
    result = by_category(scores, {"a": entailment, "b": entailment, "c": Category("T", "rouge_l")})
    assert list(result) == ["T", "Textual Entailment", "overall"]
    assert result["Textual Entailment"] == {
        "tasks": 2,
        "examples": 150,
        "exact_match_normalized": pytest.approx(0.6),
        "rouge_l": pytest.approx(0.7),
        "headline": "exact_match_normalized",
        "score": pytest.approx(0.6),
    }
    assert result["T"]["score"] == 0.2
    assert result["overall"]["examples"] == 200
    assert result["overall"]["score"] == pytest.approx((100 * 0.6 + 50 * 0.9 + 50 * 0.2) / 200)
    assert by_category(scores, {}) == {}


@pytest.mark.parametrize(
    ("target", "prediction", "score"),
    [
        ("Привет, мир", "привет, мир", 1.0),
        ("Привет мир", "мир", 2 / 3),  # One of two words: precision 1, recall 1/2.
        ("猫が好き", "犬が好き", 3 / 4),  # Three of four characters.
        ("one two", "one  two", 1.0),
        ("running", "run", 0.0),  # No stemmer.
        ("a", "", 0.0),
    ],
)
def test_rouge_in_any_script(target, prediction, score):
    assert rouge_l_xlingual([target], [prediction])["rouge_l_xlingual"] == pytest.approx(score)


def test_the_best_reference_counts():
    targets = [["кот", "собака"], "x"]
    assert rouge_l_xlingual(targets, ["собака", "y"]) == {"rouge_l_xlingual": 0.5}
    with pytest.raises(ValueError):
        rouge_l_xlingual([], [])
