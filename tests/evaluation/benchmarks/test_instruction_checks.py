"""IFEval's checks on hand-written responses, and against lm-evaluation-harness's own."""

import json
import random

import pytest

from ift_jax.evaluation.benchmarks.instruction_checks import sentences
from ift_jax.evaluation.benchmarks.instruction_checks.instructions import (
    CHECKS,
    followed,
    followed_loosely,
    instruction_error,
    loose_variants,
)
from tests.evaluation.benchmarks.instruction_cases import CASES
from tests.shared_data import SHARED, requires_shared

_FLAT = [
    (name, arguments, response, follows)
    for name, cases in CASES.items()
    for arguments, right, wrong in cases
    for follows, responses in ((True, right), (False, wrong))
    for response in responses
]
_NEEDS_DETECTION = ("language:", "change_case:english")


def _require_packages(name):
    if name.startswith(_NEEDS_DETECTION):
        pytest.importorskip("langdetect", reason="the extra ifeval is not installed")


def test_every_instruction_has_responses_that_follow_it_and_ones_that_do_not():
    assert set(CASES) == set(CHECKS) and len(CHECKS) == 25
    for name, cases in CASES.items():
        assert any(right for _, right, _ in cases) and any(wrong for _, _, wrong in cases), name


@pytest.mark.parametrize("name", CASES)
def test_a_check_tells_them_apart(name):
    _require_packages(name)
    for of, arguments, response, follows in _FLAT:
        if of == name:
            assert not instruction_error(name, arguments)
            assert followed(response, [name], [arguments]) == [follows], (arguments, response)


@pytest.mark.parametrize("name", CASES)
def test_lm_evaluation_harness_agrees(name, monkeypatch):
    registry = _lm_eval_registry(monkeypatch)
    _require_packages(name)
    for of, arguments, response, follows in _FLAT:
        if of != name or (name == "keywords:letter_frequency" and arguments["letter"] == "#"):
            continue  # It draws a random letter in place of a sign.
        theirs = registry.INSTRUCTION_DICT[name](name)
        theirs.build_description(**arguments)
        if response.strip():
            assert bool(theirs.check_following(response)) == follows, (arguments, response)


@requires_shared
def test_lm_evaluation_harness_agrees_on_mutated_responses_to_the_published_prompts(monkeypatch):
    """Pieces of the hand-written responses, put together at random, strictly and loosely."""
    _lm_eval_registry(monkeypatch)
    from lm_eval.tasks.ifeval import utils

    pytest.importorskip("langdetect", reason="the extra ifeval is not installed")
    import langdetect

    monkeypatch.setattr(langdetect.DetectorFactory, "seed", 0)
    draw = random.Random(0)
    pieces = [response for _, _, response, _ in _FLAT] + ["\n", "\n\n", "***", "Sure:\n", " plum "]
    lines = (SHARED / "data" / "ifeval" / "input_data.jsonl").read_text().splitlines()
    verdicts = []
    for line in lines[::3]:
        row = json.loads(line)
        if any(kwargs.get("letter") in ("#", "!") for kwargs in row["kwargs"]):
            continue
        response = "".join(draw.choices(pieces, k=draw.randint(1, 12)))
        if draw.random() < 0.3:
            response = row["prompt"] + response
        given = row["instruction_id_list"], row["kwargs"]
        example = utils.InputExample(row["key"], given[0], row["prompt"], given[1])
        strict = utils.test_instruction_following_strict(example, response)
        loose = utils.test_instruction_following_loose(example, response)
        assert followed(response, *given) == strict.follow_instruction_list, response
        assert followed_loosely(response, *given) == loose.follow_instruction_list, response
        verdicts += strict.follow_instruction_list
    assert len(verdicts) > 200 and 0.2 < sum(verdicts) / len(verdicts) < 0.8


def _lm_eval_registry(monkeypatch):
    """lm-eval's table of checkers, with our sentences where NLTK's data is not on this machine."""
    for package in ("lm_eval", "immutabledict", "langdetect"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    import nltk

    # Its import would download data; what follows replaces what needs it.
    monkeypatch.setattr(nltk, "download", lambda *args, **kwargs: True)
    from lm_eval.tasks.ifeval import instructions_registry, instructions_util

    monkeypatch.setattr(instructions_util, "count_sentences", sentences.count_sentences)
    monkeypatch.setattr(nltk, "word_tokenize", sentences.word_tokens)
    return instructions_registry


def test_the_loose_rule_forgives_an_opening_line_a_closing_line_and_asterisks():
    names, arguments = ["startend:quotation"], [{}]
    response = 'Sure, here it is:\n**"All of it."**\nDone.'
    assert followed(response, names, arguments) == [False]
    assert followed_loosely(response, names, arguments) == [True]
    assert loose_variants("a\nb") == ["a\nb", "b", "a", ""]
    assert followed_loosely(" ", ["punctuation:no_comma"], [{}]) == [False]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("keywords:exist", {}, "no instruction 'keywords:exist'"),
        ("startend:quotation", {"a": 1}, "expected the arguments none; found a"),
        ("keywords:frequency", {"keyword": "a"}, "expected the arguments frequency, keyword, rel"),
        (
            "length_constraints:number_words",
            {"num_words": 3, "relation": "more than"},
            "relation: expected one of",
        ),
        ("keywords:existence", {"keywords": ["a("]}, "'a\\(' is no pattern"),
    ],
)
def test_a_wrong_instruction_is_named(name, arguments, message):
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(instruction_error(name, arguments))


def test_sentences_without_trained_data():
    split = sentences.untrained_tokenizer().tokenize
    text = "Mr. Smith paid $3.50, not more. He left at 5 p.m. The end? Yes! Ha... and so on."
    assert split(text) == [
        "Mr. Smith paid $3.50, not more.",
        "He left at 5 p.m.",
        "The end?",
        "Yes!",
        "Ha... and so on.",
    ]
    assert sentences.word_tokens("One, two. Done.") == ["One", ",", "two", ".", "Done", "."]
