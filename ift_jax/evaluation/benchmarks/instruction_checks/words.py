"""Checks of which words, letters, and sentences a response has, and of how many.

Keywords are regular expressions, as in the release: the published prompts have only plain words.
"""

import re
from collections.abc import Sequence

from ift_jax.evaluation.benchmarks.instruction_checks.sentences import (
    count_sentences,
    count_words,
    word_tokens,
)

RELATIONS = ("less than", "at least")
_FIRST_WORD_END = re.compile(r"[.,?!'\"]")


def _compare(count: int, relation: str, threshold: int) -> bool:
    """Whether a count is "less than" or "at least" a threshold."""
    if relation not in RELATIONS:
        raise ValueError(f"expected one of {RELATIONS}; got {relation!r}")
    return count < threshold if relation == "less than" else count >= threshold


def existence(response: str, *, keywords: Sequence[str]) -> bool:
    """Every keyword occurs, in any case, also inside of words."""
    return all(re.search(keyword, response, re.IGNORECASE) for keyword in keywords)


def keyword_frequency(response: str, *, keyword: str, frequency: int, relation: str) -> bool:
    """A keyword occurs less than, or at least, so many times."""
    found = re.findall(keyword.strip(), response, re.IGNORECASE)
    return _compare(len(found), relation, frequency)


def forbidden_words(response: str, *, forbidden_words: Sequence[str]) -> bool:
    """None of the words occurs as a word of its own."""
    return not any(re.search(rf"\b{word}\b", response, re.IGNORECASE) for word in forbidden_words)


def letter_frequency(response: str, *, letter: str, let_frequency: int, let_relation: str) -> bool:
    """A letter occurs, in any case, less than, or at least, so many times.

    One of the published prompts asks for `!` and another for `#`. These signs are counted here;
    the release's checker draws a random letter instead of a sign.
    """
    return _compare(response.lower().count(letter.strip().lower()), let_relation, let_frequency)


def capital_word_frequency(response: str, *, capital_frequency: int, capital_relation: str) -> bool:
    """Less than, or at least, so many words have capital letters only; a hyphen joins words."""
    capital = [word for word in word_tokens(response) if word.isupper()]
    return _compare(len(capital), capital_relation, capital_frequency)


def number_words(response: str, *, num_words: int, relation: str) -> bool:
    """The response has less than, or at least, so many words."""
    return _compare(count_words(response), relation, num_words)


def number_sentences(response: str, *, num_sentences: int, relation: str) -> bool:
    """The response has less than, or at least, so many sentences."""
    return _compare(count_sentences(response), relation, num_sentences)


def number_paragraphs(response: str, *, num_paragraphs: int) -> bool:
    """`***` divides the response into exactly so many paragraphs, none of them empty."""
    paragraphs = [part.strip() for part in re.split(r"\s?\*\*\*\s?", response)]
    if not all(paragraphs[1:-1]):
        return False
    return len([paragraph for paragraph in paragraphs if paragraph]) == num_paragraphs


def nth_paragraph_first_word(
    response: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str
) -> bool:
    """Empty lines separate exactly so many paragraphs, and the n-th begins with a word.

    As in the release, `nth_paragraph` counts empty paragraphs, `num_paragraphs` does not.
    """
    paragraphs = [part.strip() for part in response.split("\n\n")]
    n_filled = sum(bool(paragraph) for paragraph in paragraphs)
    if nth_paragraph > n_filled or not paragraphs[nth_paragraph - 1]:
        return False
    word = paragraphs[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"')
    word = _FIRST_WORD_END.split(word)[0].lower()
    return n_filled == num_paragraphs and word == first_word.lower()
