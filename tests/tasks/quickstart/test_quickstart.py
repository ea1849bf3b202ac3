"""The quickstart's text: disjoint splits, right answers, enough examples, always the same."""

import collections
import json
import re

import pytest
import seqio

from ift_jax.data.randomness import Draws
from ift_jax.metrics import majority_baseline
from tasks.quickstart import words
from tasks.quickstart.instruction import Instruction, InstructionSource
from tasks.quickstart.tasks import (
    HELD_OUT,
    HELDOUT_MIXTURE,
    INSTRUCTIONS,
    TRAIN_MIXTURE,
    register,
)

BY_NAME = {instruction.name: instruction for instruction in INSTRUCTIONS}


def _records(name, split="validation", seed=0):
    held_out = BY_NAME[name].cluster == HELD_OUT
    source = InstructionSource(BY_NAME[name], [], held_out=held_out)
    return list(source.records("test" if held_out else split, seed=seed))


def _all_texts(instruction, split):
    n = len(instruction.phrasings)
    return {
        instruction.render(item, k)["inputs"] for item in instruction.items[split] for k in range(n)
    }


def test_there_is_enough_of_it():
    clusters = collections.Counter(instruction.cluster for instruction in INSTRUCTIONS)
    assert len(INSTRUCTIONS) >= 24
    assert len(clusters) >= 9 and HELD_OUT in clusters
    assert all(len(set(instruction.phrasings)) >= 4 for instruction in INSTRUCTIONS)
    register("")
    train = seqio.MixtureRegistry.get(TRAIN_MIXTURE)
    heldout = seqio.MixtureRegistry.get(HELDOUT_MIXTURE)
    names = {f"quickstart_{i.name}": i.cluster == HELD_OUT for i in INSTRUCTIONS}
    assert {task.name for task in heldout.tasks} == {n for n, held in names.items() if held}
    assert {task.name for task in train.tasks} == {n for n, held in names.items() if not held}
    assert 60_000 < train.num_input_examples("train") < 90_000
    for task in train.tasks:
        assert task.num_input_examples("train") >= 1000
        assert task.num_input_examples("validation") >= 80


def test_no_phrasing_of_a_validation_item_occurs_in_training():
    train = [text for i in INSTRUCTIONS for text in _all_texts(i, "train")]
    unseen = [text for i in INSTRUCTIONS for text in _all_texts(i, "validation")]
    # No two tasks generate the same text either, so an answer is never ambiguous.
    assert len(set(train)) == len(train)
    assert len(set(unseen)) == len(unseen)
    assert not set(train) & set(unseen)


def test_the_commonest_answer_scores_low():
    scores = [
        majority_baseline([str(item["answer"]) for item in i.items["validation"]])
        for i in INSTRUCTIONS
        if i.cluster != HELD_OUT
    ]
    assert sum(scores) / len(scores) < 0.2
    assert max(scores) < 0.5


def test_prompts_and_answers_are_short_and_clean():
    for name in BY_NAME:
        for record in _records(name):
            assert len(record["inputs"].split()) <= 30
            assert 1 <= len(record["targets"].split()) <= 10
            assert record["inputs"] == record["inputs"].strip()
            assert "{" not in record["inputs"] or json.loads(
                re.search(r"{.*}", record["inputs"]).group()
            )


@pytest.mark.parametrize("name", ["sentiment", "add_story", "read_who"])
def test_the_seed_draws_the_phrasing_and_nothing_else(name):
    first, again, other = (_records(name, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert [r["targets"] for r in first] == [r["targets"] for r in other]
    changed = sum(a["inputs"] != b["inputs"] for a, b in zip(first, other, strict=True))
    assert 0.6 < changed / len(first) < 0.9  # Three of four phrasings differ from the first.


def test_the_fingerprint_follows_the_text():
    def make(answer, phrasing="{a}?"):
        return Instruction(
            "made",
            "words",
            (phrasing,) * 4,
            lambda d: {"a": d.below(10**6), "answer": answer},
            train=50,
            validation=5,
        )

    def fingerprint(instruction, split="train"):
        return InstructionSource(instruction, [], held_out=False).fingerprint(split)

    assert fingerprint(make("x")) == fingerprint(make("x"))
    different = [make("x"), make("y"), make("x", "{a}!")]
    assert len({*map(fingerprint, different), fingerprint(make("x"), "validation")}) == 4


# The following tests derive the answers again from the text that the model reads.


def _last_line(record, pattern):
    return next(m for line in record["inputs"].split("\n") if (m := re.fullmatch(pattern, line)))


def test_lists():
    for name, change in (("sort_words", sorted), ("reverse_words", lambda w: w[::-1])):
        for record in _records(name):
            known = set(words.SORTABLE)
            listed = [w for w in re.findall("[a-z]+", record["inputs"]) if w in known]
            assert record["targets"].split() == list(change(listed))


def test_arithmetic():
    for name, sign in (("add_story", 1), ("take_story", -1)):
        for record in _records(name):
            a, b = map(int, re.findall(r"\d+", record["inputs"]))
            assert int(record["targets"]) == a + sign * b


def test_dates():
    import datetime

    for record in _records("short_date"):
        weekday, month, day = _last_line(record, r"(\w+), (\w+) (\d+)").groups()
        number = datetime.datetime.strptime(month, "%B").month
        assert record["targets"] == f"{weekday[:3]} {day}/{number}"
    monday = datetime.date(2024, 1, 1)
    for record in _records("weekday"):
        start = re.search(r"on (\w+day)", record["inputs"]).group(1)
        later = {"the next": 1, "two": 2, "three": 3}
        days = later[re.search(r"(the next|two|three) day", record["inputs"]).group(1)]
        week = [(monday + datetime.timedelta(days=k)).strftime("%A") for k in range(7)]
        assert record["targets"] == week[(week.index(start) + days) % 7]


def test_units_and_clock():
    factors = {"hours": 60, "days": 24, "weeks": 7, "years": 12, "meters": 100, "kilograms": 1000}
    for record in _records("units"):
        n, unit = re.search(r"(\d) (\w+)", record["inputs"]).groups()
        value, small = record["targets"].split()
        assert int(value) == int(n) * factors[unit]
        assert small in record["inputs"] and small != unit
    for record in _records("clock"):
        hour, minute = record["targets"].split(":")
        word = {"00": "o'clock", "15": "quarter past", "30": "half past"}[minute]
        assert word in record["inputs"]
        assert re.search(rf"\b{words.NUMBER_WORDS[int(hour)]}\b", record["inputs"])


def test_structure():
    for record in _records("json_value"):
        facts = json.loads(re.search(r"{.*}", record["inputs"]).group())
        [key] = [k for k, v in facts.items() if v == record["targets"]]
        assert re.search(rf"\b{key}\b", re.sub("{.*}", "", record["inputs"]))
    for record in _records("json_to_sentence"):
        facts = json.loads(re.search(r"{.*}", record["inputs"]).group())
        assert record["targets"] == f"{facts['name']} is a {facts['job']} in {facts['city']}."


def test_translation_is_one_to_one():
    for table in (words.ZORIN_COLORS, words.ZORIN_ANIMALS, words.ZORIN_VERBS):
        assert len(set(table.values())) == len(table)
    back = {
        z: e
        for t in (words.ZORIN_COLORS, words.ZORIN_ANIMALS, words.ZORIN_VERBS)
        for e, z in t.items()
    }
    for record in _records("to_zorin"):
        english = " ".join(back[word] for word in record["targets"].split())
        assert english in record["inputs"].split("\n")


def test_entailment_follows_from_the_colors():
    for record in _records("entailment"):
        named = re.findall(rf"\b({'|'.join(words.COLORS)})\b", record["inputs"])
        expected = "maybe" if len(named) == 1 else "yes" if named[0] == named[1] else "no"
        assert record["targets"] == expected


def test_extraction_and_reading_copy_from_the_text():
    for name in ("extract_city", "extract_object", "read_who", "read_where", "read_color"):
        for record in _records(name):
            assert record["inputs"].count(record["targets"]) == 1


def test_words_are_in_one_group_each():
    grouped = [word for members in words.CATEGORIES.values() for word in members]
    assert len(grouped) == len(set(grouped))
    assert len({word[0] for word in words.SORTABLE}) == len(words.SORTABLE)
    for table in (words.OPPOSITES, words.PLURALS):
        assert len(dict(table)) == len(table)
    assert all(dict(words.OPPOSITES)[b] == a for a, b in words.OPPOSITES)


def test_a_task_that_runs_out_of_items_says_so():
    from ift_jax.errors import UserError

    def few(d: Draws):
        return {"a": d.below(20), "answer": "x"}

    with pytest.raises(UserError, match="quickstart task few: only .* different items"):
        assert Instruction("few", "words", ("{a}",) * 4, few).items
