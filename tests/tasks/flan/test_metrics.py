"""FLAN's own metrics: values by hand, and of T5's functions, which FLAN calls."""

import pytest

from ift_jax.metrics import metric_by_name, metric_names
from tasks.flan import metrics
from tasks.flan.datasets import DATASETS


def test_f1_is_that_of_yes_and_no_label_at_all_is_wrong():
    targets = ["yes", "no", "yes", "no", "yes"]
    predictions = ["yes", "yes", "maybe", "no", " no "]
    # One hit, one false "yes", two that are missed.
    assert metrics.f1(targets, predictions) == {"f1": pytest.approx(2 / 5)}
    assert metrics.f1(["no"], ["no"]) == {"f1": 0.0}


def test_the_mean_f1_of_cb_is_over_three_labels_whatever_is_predicted():
    yes, no, unknown = "Yes", "No", "It's impossible to say"
    targets = [yes, yes, no, no, unknown, unknown]
    predictions = [yes, no, no, no, yes, unknown]
    want = (1 / 2 + 4 / 5 + 2 / 3) / 3
    assert metrics.mean_class_f1(targets, predictions)["mean_class_f1"] == pytest.approx(want)
    assert metrics.mean_class_f1([yes], ["yes"])["mean_class_f1"] == 0.0


def test_trivia_qa_is_that_of_t5():
    targets = [["The Beatles", "Beatles"], ["New-York City"], ["O’Neill `x"], ["an apple a day"]]
    predictions = ["the beatles!", "new york", "o neill x", "apple day apple"]
    # What t5.evaluation.qa_utils (0.9.4) gives, over 100.
    want = {"em": 0.5, "f1": pytest.approx(0.9)}
    assert metrics.trivia_qa(targets, predictions) == want


def test_the_edit_distance_counts_words_without_case():
    targets = [["The cat, sat."], ["one two three"], ["a"]]
    predictions = ["the bat sat", "two three four", "a b c"]
    # "The cat, sat." are five words, two of them empty.
    assert metrics.edit_distance(targets, predictions)["mean_edit"] == pytest.approx(
        (3 + 2 + 2) / 3
    )
    assert metrics.edit_distance(["A b"], ["a B"])["mean_edit"] == 0.0


def test_rouge_takes_the_best_reference_for_each_of_its_kinds():
    got = metrics.best_rouge([["the cat sat on the mat", "a dog"], ["x y"]], ["the cat sat", "y x"])
    # 3 of 3 and 6 words, 2 of 2 and 5 pairs, and one word in order of "x y".
    want = {"rouge1": (2 / 3 + 1) / 2, "rouge2": (4 / 7 + 0) / 2, "rougeLsum": (2 / 3 + 1 / 2) / 2}
    assert got == {name: pytest.approx(value) for name, value in want.items()}


def test_each_data_set_has_the_metrics_of_flan():
    """Those of flan/tasks.py, and by what names another process finds them."""
    want = {
        "rouge": ["xsum", "aeslc", "wiki_lingua_english_en"],
        "best_rouge": ["common_gen", "dart", "e2e_nlg", "web_nlg_en"],
        "bleu": ["wmt16_translate_deen", "wmt14_enfr", "para_crawl_enes"],
        "squad": ["squad_v1", "squad_v2", "drop", "coqa", "record"],
        "trivia_qa": ["trivia_qa", "natural_questions", "quac"],
        "f1 exact_match": ["mrpc", "qqp", "multirc"],
        "mean_class_f1 exact_match": ["cb"],
        "correlations": ["stsb"],
        "exact_match edit_distance": ["true_case", "fix_punct", "word_segment"],
        "exact_match": ["rte", "snli", "ag_news_subset", "bool_q", "cola", "math_dataset"],
    }
    for names, data_sets in want.items():
        for name in data_sets:
            found = DATASETS[name].metrics
            assert " ".join(metric.__name__ for metric in found) == names, name
            assert tuple(map(metric_by_name, metric_names(found))) == found
