"""T5's metrics against hand-made truths and those of SciPy."""

import math

import numpy as np
import pytest
import scipy.stats

from tasks.t5 import metrics
from tasks.t5.formats import tagged


def test_accuracy_and_f1_count_an_invalid_answer_as_wrong():
    targets = [["equivalent"], ["not_equivalent"], ["equivalent"], ["not_equivalent"]]
    answers = ["equivalent", "not_equivalent", "no idea", "no idea"]
    assert metrics.accuracy(targets, answers) == {"accuracy": 0.5}
    # One true positive, one false negative, one false positive.
    assert metrics.f1(targets, answers) == {"f1": 0.5}
    assert metrics.f1(targets, ["not_equivalent"] * 4) == {"f1": 0.0}
    assert metrics.accuracy(["a"], [" a\n"]) == {"accuracy": 1.0}
    for wrong in ([], ["a", "b"]):
        with pytest.raises(ValueError, match="targets and"):
            metrics.accuracy(["a"], wrong)


def test_matthews():
    # 3 true positives, 1 false negative, 2 false positives, 4 true negatives.
    targets = ["acceptable"] * 4 + ["unacceptable"] * 6
    answers = ["acceptable"] * 3 + ["unacceptable"] + ["acceptable"] * 2 + ["unacceptable"] * 4
    expected = (3 * 4 - 2 * 1) / math.sqrt(5 * 4 * 6 * 5)
    assert metrics.matthews(targets, answers)["matthews"] == pytest.approx(expected)
    assert metrics.matthews(targets, ["acceptable"] * 10) == {"matthews": 0.0}
    assert metrics.matthews(targets, targets)["matthews"] == pytest.approx(1)


def test_mean_class_f1():
    targets = ["entailment", "entailment", "contradiction", "neutral"]
    answers = ["entailment", "neutral", "contradiction", "maybe"]
    assert metrics.mean_class_f1(targets, answers)["mean_class_f1"] == pytest.approx(
        (2 / 3 + 1 + 0) / 3
    )


def test_correlations():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 26, (2, 50)) / 5
    y[:20] = x[:20]
    got = metrics.correlations([f"{v:.1f}" for v in x], [f"{v:.1f}" for v in y])
    assert got["pearson"] == pytest.approx(scipy.stats.pearsonr(x, y)[0])
    assert got["spearman"] == pytest.approx(scipy.stats.spearmanr(x, y)[0])
    y[3] = -1
    answers = [f"{v:.1f}" for v in y]
    answers[3] = "similar"
    got = metrics.correlations([f"{v:.1f}" for v in x], answers)
    assert got["pearson"] == pytest.approx(scipy.stats.pearsonr(x, y)[0])
    assert metrics.correlations(["1.0", "2.0"], ["nan", "x"]) == {"pearson": 0, "spearman": 0}


def test_multirc_groups_by_question():
    groups = ["0/1", "0/1", "0/2", "3/2"]
    truths = ["True", "False", "True", "False"]
    targets = [[t, *tagged(question=q)] for t, q in zip(truths, groups, strict=True)]
    answers = ["True", "False", "True", "True"]
    got = metrics.multirc(targets, answers)
    assert got == {"multirc_f1": pytest.approx(0.8), "multirc_em": pytest.approx(2 / 3)}


@pytest.mark.parametrize(
    ("referent", "answer", "label", "right"),
    [
        ("The fuzzy bunny", "bunny", "True", True),
        ("bunny", "the fuzzy Bunny", "True", True),
        ("Bob's hat", "Bob", "False", True),  # Only one of them has an apostrophe.
        ("Bob", "Tom", "False", True),
        ("Bob", "Tom", "True", False),
        ("Bob", "", "True", False),
        ("Bob", "Bob", "<unk>", False),
    ],
)
def test_wsc(referent, answer, label, right):
    targets = [[referent, *tagged(label=label)]]
    assert metrics.wsc_accuracy(targets, [answer]) == {"accuracy": float(right)}


def test_squad_takes_the_best_answer():
    targets = [["the Denver Broncos", "Denver"], ["42"]]
    assert metrics.squad(targets, ["Denver Broncos!", "about 42"]) == {
        "em": 0.5,
        "f1": pytest.approx((1 + 2 / 3) / 2),
    }


def test_rouge_splits_sentences_at_periods():
    target, answer = "a b c . d e f .", "d e f . a b c ."
    got = metrics.rouge([target], [answer])
    assert got["rouge1"] == got["rougeLsum"] == 1.0  # On one line, half would be common.
    assert got["rouge2"] == pytest.approx(4 / 5)


def test_bleu():
    text = "the cat sat on the mat ."
    assert metrics.bleu([text], [text])["bleu"] == pytest.approx(1)
    # The precisions are 5/6, 3/5, 1/4 and 0/3, smoothed to 1/6; the lengths are equal.
    got = metrics.bleu(["a b c d e f"], ["a b c x e f"])["bleu"]
    assert got == pytest.approx((5 / 6 * 3 / 5 * 1 / 4 * 0.5 / 3) ** 0.25)
    short = metrics.bleu(["a b c d e f g h"], ["a b c d"])["bleu"]
    assert short == pytest.approx(math.exp(1 - 8 / 4))
    assert metrics.bleu(["a b c d"], ["a b"]) == {"bleu": 0.0}
    assert metrics.bleu(["a b c d"], ["v x y z"]) == {"bleu": 0.0}
    # With several references, the most matches and the nearest length count.
    many = metrics.bleu([["a b c d", "a b c d e f g"]], ["a b c d"])["bleu"]
    assert many == pytest.approx(1)
