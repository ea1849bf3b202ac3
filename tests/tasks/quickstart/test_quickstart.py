"""The quickstart's text: disjoint splits, right answers, enough examples, always the same."""

import collections
import re

import pytest
import seqio

from ift_jax.data.randomness import Draws
from ift_jax.metrics import majority_baseline
from tasks.quickstart import words
from tasks.quickstart.instruction import Instruction, InstructionSource
from tasks.quickstart.scenes import HELD_OUT, QUESTIONS, SCENES
from tasks.quickstart.tasks import HELDOUT_MIXTURE, INSTRUCTIONS, TRAIN_MIXTURE, chance, register
from tasks.quickstart.text import N_OPTIONS

BY_NAME = {instruction.name: instruction for instruction in INSTRUCTIONS}
OF_SCENES = [i for i in INSTRUCTIONS if i.cluster in SCENES]


def _records(name, split="validation", seed=0):
    held_out = BY_NAME[name].cluster in HELD_OUT
    source = InstructionSource(BY_NAME[name], [], held_out=held_out)
    return list(source.records("test" if held_out else split, seed=seed))


def _all_texts(instruction, split):
    n = len(instruction.phrasings)
    return {
        instruction.render(item, k)["inputs"] for item in instruction.items[split] for k in range(n)
    }


def _options(record):
    return re.search(r"\nOptions: (.*)", record["inputs"]).group(1).split(", ")


def test_there_is_enough_of_it():
    clusters = collections.Counter(instruction.cluster for instruction in INSTRUCTIONS)
    assert len(INSTRUCTIONS) >= 40
    assert len(clusters) >= 16 and set(HELD_OUT) < set(clusters)
    assert all(len(set(instruction.phrasings)) >= 4 for instruction in INSTRUCTIONS)
    register("")
    train = seqio.MixtureRegistry.get(TRAIN_MIXTURE)
    heldout = seqio.MixtureRegistry.get(HELDOUT_MIXTURE)
    names = {f"quickstart_{i.name}": i.cluster in HELD_OUT for i in INSTRUCTIONS}
    assert {task.name for task in heldout.tasks} == {n for n, held in names.items() if held}
    assert {task.name for task in train.tasks} == {n for n, held in names.items() if not held}
    assert 12_000 < train.num_input_examples("train") < 16_000
    for task in train.tasks:
        assert task.num_input_examples("train") >= 380
        assert task.num_input_examples("validation") >= 40


def test_no_phrasing_of_a_validation_item_occurs_in_training():
    train = [text for i in INSTRUCTIONS for text in _all_texts(i, "train")]
    unseen = [text for i in INSTRUCTIONS for text in _all_texts(i, "validation")]
    # No two tasks generate the same text either, so an answer is never ambiguous.
    assert len(set(train)) == len(train)
    assert len(set(unseen)) == len(unseen)
    # Options are no part of an item: another order of them does not make it another one.
    bare = {text.partition("\nOptions")[0] for text in train}
    assert not bare & {text.partition("\nOptions")[0] for text in unseen}


def test_held_out_scenes_ask_for_trained_kinds_in_sentences_and_words_of_their_own():
    trained = {cluster: scene for cluster, scene in SCENES.items() if cluster not in HELD_OUT}
    kinds = {kind for _, asked, _ in trained.values() for kind in asked.split()}
    forms = {form for _, _, forms in trained.values() for form in forms}
    for cluster in HELD_OUT:
        _, asked, own_forms = SCENES[cluster]
        assert set(asked.split()) <= kinds and not set(own_forms) & forms
    for kind, (*_, unseen) in QUESTIONS.items():
        of_kind = [i for i in OF_SCENES if i.name.endswith(f"_{kind}")]
        asks_unseen = {i.cluster for i in of_kind if any(unseen in p for p in i.phrasings)}
        assert asks_unseen == {i.cluster for i in of_kind} & set(HELD_OUT)
        assert len({i.cluster for i in of_kind} - set(HELD_OUT)) >= 3


def test_options_are_three_and_one_is_the_answer():
    for instruction in INSTRUCTIONS:
        places = collections.Counter()
        for record in _records(instruction.name):
            if not instruction.has_options:
                assert "Options" not in record["inputs"]
                continue
            options = _options(record)
            assert len(set(options)) == len(options) == N_OPTIONS
            answer = re.fullmatch(r"It is (.*)\.", record["targets"]).group(1)
            places[options.index(answer)] += 1
        # The place of the right one says nothing.
        assert all(n < 0.6 * sum(places.values()) for n in places.values())
    assert chance([["a"]], ["b"]) == {"chance": 1 / N_OPTIONS}
    n_without = sum(not instruction.has_options for instruction in INSTRUCTIONS)
    assert n_without == 1  # Entailment, whose answers are few.


def test_the_commonest_answer_scores_low():
    scores = [
        majority_baseline([str(item["answer"]) for item in i.items["validation"]])
        for i in INSTRUCTIONS
    ]
    assert sum(scores) / len(scores) < 0.25
    assert max(scores) < 0.5


def test_prompts_and_answers_are_short_and_clean():
    for name in BY_NAME:
        for record in _records(name):
            assert len(record["inputs"].split()) <= 30
            assert 1 <= len(record["targets"].split()) <= 4
            assert record["inputs"] == record["inputs"].strip()
            assert "{" not in record["inputs"]


@pytest.mark.parametrize("name", ["sentiment", "trip_who", "read_who"])
def test_the_seed_draws_the_phrasing_and_nothing_else(name):
    first, again, other = (_records(name, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert [r["targets"] for r in first] == [r["targets"] for r in other]
    changed = sum(a["inputs"] != b["inputs"] for a, b in zip(first, other, strict=True))
    assert 0.6 < changed / len(first) < 0.95  # Three of four phrasings differ from the first.


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


def test_the_answer_of_a_scene_is_the_only_option_of_the_kind_that_is_asked_for():
    pools = {
        "who": words.NAMES,
        "where": words.CITIES,
        "color": words.COLORS,
        "animal": words.ANIMALS,
        "thing": words.THINGS,
        "job": words.JOBS,
        "food": words.FOODS,
        "day": words.DAYS,
    }
    for instruction in OF_SCENES:
        pool = pools[instruction.name.rpartition("_")[2]]
        for record in _records(instruction.name):
            [right] = [option for option in _options(record) if option in pool]
            assert record["targets"] == f"It is {right}."
            text = record["inputs"].partition("\nOptions")[0].lower()
            assert all(option.lower() in text for option in _options(record))


def test_seasons_follow_the_months():
    for record in _records("season"):
        month = words.MONTHS.index(
            re.search(rf"\b({'|'.join(words.MONTHS)})\b", record["inputs"])[0]
        )
        assert record["targets"] == f"It is {words.SEASONS[month]}."


def test_the_value_of_a_record_is_that_of_its_field():
    for record in _records("record_value"):
        facts = dict(re.findall(r"(\w+): (\w+)(?:;|$)", record["inputs"], re.MULTILINE))
        [key] = [k for k, v in facts.items() if record["targets"] == f"It is {v}."]
        assert re.search(rf"\b{key}\b", re.sub(rf"{key}: ", "", record["inputs"]))


def test_entailment_follows_from_the_colors():
    for record in _records("entailment"):
        named = re.findall(rf"\b({'|'.join(words.COLORS)})\b", record["inputs"])
        expected = "maybe" if len(named) == 1 else "yes" if named[0] == named[1] else "no"
        assert record["targets"] == expected


def test_a_word_is_of_one_kind():
    pools = (words.NAMES, words.CITIES, words.COLORS, words.JOBS, words.THINGS, words.FOODS)
    everything = [word for pool in (*pools, words.ANIMALS, words.DAYS) for word in pool]
    assert len(set(everything)) == len(everything)


def test_a_task_that_runs_out_of_items_says_so():
    from ift_jax.errors import UserError

    def few(d: Draws):
        return {"a": d.below(20), "answer": "x"}

    with pytest.raises(UserError, match="quickstart task few: only .* different items"):
        assert Instruction("few", "words", ("{a}",) * 4, few).items
