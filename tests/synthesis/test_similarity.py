"""The index finds exactly what comparing all pairs with rouge_score finds."""

import random

import pytest
from rouge_score import rouge_scorer

from ift_jax.errors import UserError
from ift_jax.synthesis.similarity import (
    SimilarityIndex,
    longest_common_subsequence,
    rouge_l_of_tokens,
    rouge_tokens,
)


def random_texts(seed: int, n: int) -> list[str]:
    """Texts of all lengths with a few frequent words; a half are changed copies of earlier ones."""
    rng = random.Random(seed)
    vocabulary = [f"w{i}" for i in range(60)]
    weights = [1 / (i + 1) for i in range(60)]
    texts: list[list[str]] = []
    for _ in range(n):
        if texts and rng.random() < 0.5:
            words = list(rng.choice(texts))
            for _ in range(rng.randrange(6)):
                place = rng.randrange(len(words) + 1)
                if rng.random() < 0.5:
                    words.insert(place, rng.choice(vocabulary))
                else:
                    del words[place : place + 1]
        else:
            words = rng.choices(vocabulary, weights, k=rng.randrange(30))
        texts.append(words)
    return [" ".join(words).capitalize() + rng.choice([".", "", "é!"]) for words in texts]


@pytest.mark.parametrize("threshold", [0.3, 0.7, 1.0])
def test_the_index_decides_as_all_pairs_of_rouge_score(threshold):
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    index = SimilarityIndex(threshold)
    kept: list[str] = []
    n_similar = 0
    for text in random_texts(int(threshold * 10), 120):
        scores = [scorer.score(other, text)["rougeL"].fmeasure for other in kept]
        expected = next((i for i, score in enumerate(scores) if score >= threshold), None)
        assert index.first_similar(text) == expected, text
        if expected is None:
            index.add(text)
            kept.append(text)
        n_similar += expected is not None
    assert len(index) == len(kept) and n_similar > 5


def test_the_score_is_rouge_scores_to_the_last_bit():
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    texts = random_texts(1, 60)
    for a, b in zip(texts, texts[1:] + texts[:1], strict=True):
        expected = scorer.score(a, b)["rougeL"].fmeasure
        assert rouge_l_of_tokens(rouge_tokens(a), rouge_tokens(b)) == expected


def test_the_subsequence_is_the_longest_also_beyond_64_tokens():
    rng = random.Random(0)
    for _ in range(40):
        a, b = (rng.choices("abcd", k=rng.randrange(100)) for _ in range(2))
        row = [0] * (len(b) + 1)
        for x in a:
            previous = row
            row = [0]
            for j, y in enumerate(b):
                row.append(previous[j] + 1 if x == y else max(previous[j + 1], row[j]))
        assert longest_common_subsequence(a, b) == row[-1]


def test_texts_without_ascii_words_are_similar_to_nothing():
    index = SimilarityIndex(0.7)
    index.add("これは何ですか")
    index.add("")
    assert index.first_similar("これは何ですか") is None and index.first_similar("plum") is None


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.1, float("nan")])
def test_a_threshold_out_of_bounds_is_refused(threshold):
    with pytest.raises(UserError, match="expected a threshold above 0"):
        SimilarityIndex(threshold)
