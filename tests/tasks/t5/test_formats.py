"""T5's formats: a full example of each, and the rows that need special care."""

import json

import pytest
import tensorflow as tf

from ift_jax.data.randomness import Draws
from ift_jax.errors import UserError
from tasks.t5 import formats
from tasks.t5.tasks import TASKS

TAG = formats.TAG


def _render(name, row, split="train", seed=0):
    task = TASKS[name]
    rows = task.expand(row, split) if task.expand else [row]
    records = [task.render(r, Draws(seed, name, i), split) for i, r in enumerate(rows)]
    for record in records:
        assert ("references" in record) == task.references
    return records


PASSAGE = "Frogs are green"
GOLDEN = {
    "glue_cola": (
        {"sentence": "They drank the pub dry.", "label": 1, "idx": 0},
        "cola sentence: They drank the pub dry.", "acceptable",
    ),
    "glue_sst2": (
        {"sentence": "dull and slow ", "label": 0, "idx": 3},
        "sst2 sentence: dull and slow ", "negative",
    ),
    "glue_mrpc": (
        {"sentence2": "B sat.", "sentence1": "A sat.", "label": 1},
        "mrpc sentence1: A sat. sentence2: B sat.", "equivalent",
    ),
    "glue_qqp": (
        {"question1": "Why?", "question2": "How?", "label": 0},
        "qqp question1: Why? question2: How?", "not_duplicate",
    ),
    "glue_stsb": (
        {"sentence1": "A dog.", "sentence2": "A cat.", "label": 3.75},
        "stsb sentence1: A dog. sentence2: A cat.", "3.8",
    ),
    "glue_mnli": (
        {"premise": "It rains.", "hypothesis": "It is dry.", "label": 2},
        "mnli hypothesis: It is dry. premise: It rains.", "contradiction",
    ),
    "glue_ax": (
        {"premise": "It rains.", "hypothesis": "It is wet.", "label": -1},
        "mnli hypothesis: It is wet. premise: It rains.", "<unk>",
    ),
    "glue_qnli": (
        {"question": "Who?", "sentence": "Ann did.", "label": 0},
        "qnli question: Who? sentence: Ann did.", "entailment",
    ),
    "glue_rte": (
        {"sentence1": "Ann ran.", "sentence2": "Ann moved.", "label": 0},
        "rte sentence1: Ann ran. sentence2: Ann moved.", "entailment",
    ),
    "super_glue_boolq": (
        {"question": "are frogs green", "passage": PASSAGE, "label": 1},
        "boolq passage: Frogs are green question: are frogs green", "True",
    ),
    "super_glue_cb": (
        {"premise": "He left?", "hypothesis": "He left.", "label": 2},
        "cb hypothesis: He left. premise: He left?", "neutral",
    ),
    "super_glue_copa": (
        {"premise": "It broke.", "choice1": "It fell.", "choice2": "It flew.",
         "question": "cause", "label": 0},
        "copa choice1: It fell. choice2: It flew. premise: It broke. question: cause", "choice1",
    ),
    "super_glue_rte": (
        {"premise": "Ann ran.", "hypothesis": "Ann sat.", "label": 1},
        "rte hypothesis: Ann sat. premise: Ann ran.", "not_entailment",
    ),
    "super_glue_wic": (
        {"word": "bank", "sentence1": "A river bank.", "sentence2": "A savings bank.",
         "start1": 8, "end1": 12, "start2": 10, "end2": 14, "label": 0},
        "wic sentence1: A river bank. sentence2: A savings bank. word: bank", "False",
    ),
    "super_glue_axb": (
        {"sentence1": "Ann ran.", "sentence2": "Ann sat.", "label": -1},
        "rte hypothesis: Ann sat. premise: Ann ran.", "<unk>",
    ),
    "dpr": (
        {"sentence": "Bob asked Tom if he can lend what he has.", "pronoun": "he",
         "candidates": ["Bob", "Tom"], "label": 1},
        "wsc: Bob asked Tom if *he* can lend what he has.", "Tom",
    ),
    "cnn_dailymail": (
        {"article": "Rain fell . Roads closed .", "highlights": "Rain closed roads ."},
        "summarize: Rain fell . Roads closed .", "Rain closed roads .",
    ),
    "wmt_ende": (
        {"en": "That is good.", "de": "Das ist gut."},
        "translate English to German: That is good.", "Das ist gut.",
    ),
    "wmt16_enro": (
        {"translation": {"en": "Good.", "ro": "Bine."}},
        "translate English to Romanian: Good.", "Bine.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name):
    row, inputs, targets = GOLDEN[name]
    assert _render(name, row) == [{"inputs": inputs, "targets": targets}]


def test_stsb_rounds_to_a_fifth_in_float32():
    def target(label):
        row = {"sentence1": "", "sentence2": "", "label": label}
        return _render("glue_stsb", row)[0]["targets"]

    got = {x: target(x) for x in (0.0, 5.0, 2.5, 1.9, 4.667, 3.2, -1.0)}
    # 2.5 lies between 2.4 and 2.6, and becomes the even number of fifths.
    assert got == {
        0.0: "0.0",
        5.0: "5.0",
        2.5: "2.4",
        1.9: "2.0",
        4.667: "4.6",
        3.2: "3.2",
        -1.0: "<unk>",
    }
    assert len({target(i / 100) for i in range(501)}) == 26


def test_multirc_loses_its_html_and_keeps_its_question():
    row = {
        "paragraph": "<b>Sent 1: </b>Rain fell.<br><b>Sent 2: </b>It was wet.",
        "question": "Why?",
        "answer": "Rain",
        "label": 1,
        "idx": {"paragraph": 4, "question": 17, "answer": 2},
    }
    (record,) = _render("super_glue_multirc", row)
    assert record["inputs"] == (
        "multirc question: Why? answer: Rain paragraph: Sent 1: Rain fell. Sent 2: It was wet."
    )
    assert record["targets"] == "True"
    assert json.loads(record["references"]) == ["True", f"{TAG}question=4/17"]


def test_record_trains_on_every_answer():
    row = {
        "passage": "Penguins swim.\n@highlight\nPigeons fly\n@highlight\nBoth walk",
        "query": "A @placeholder is a bird.",
        "entities": ["penguin", "potato", "pigeon"],
        "answers": ["penguin", "pigeon"],
    }
    inputs = (
        "record query: A @placeholder is a bird. entities: penguin, potato, pigeon "
        "passage: Penguins swim. Pigeons fly. Both walk"
    )
    train = _render("super_glue_record", row)
    assert [r["targets"] for r in train] == ["penguin", "pigeon"]
    assert {r["inputs"] for r in train} == {inputs}
    (validation,) = _render("super_glue_record", row, "validation")
    assert json.loads(validation["references"]) == ["penguin", "pigeon"]
    (test,) = _render("super_glue_record", row | {"answers": []}, "test")
    assert test["targets"] == "<unk>"


def test_wsc_marks_the_pronoun():
    row = {
        "text": "Mark told Pete many lies about himself , but he knew .",
        "span1_text": "Mark",
        "span1_index": 0,
        "span2_text": "he",
        "span2_index": 9,
    }
    inputs = "wsc: Mark told Pete many lies about himself , but *he* knew ."
    (record,) = _render("super_glue_wsc", row | {"label": 1})
    assert (record["inputs"], record["targets"]) == (inputs, "Mark")
    assert _render("super_glue_wsc", row | {"label": 0}) == []  # It is never trained on.
    (record,) = _render("super_glue_wsc", row | {"label": 0}, "validation")
    assert json.loads(record["references"]) == ["Mark", f"{TAG}label=False"]


def test_wsc_whose_index_is_off_or_whose_pronoun_has_punctuation():
    row = {"span1_text": "x", "label": 1}
    off = row | {"text": "They might want to use it , but no .", "span2_text": "it"}
    (record,) = _render("super_glue_wsc", off | {"span2_index": 4})
    assert record["inputs"] == "wsc: They might want to use *it* , but no ."
    quoted = row | {"text": 'Loud. "Good for him," he said.', "span2_text": "him"}
    (record,) = _render("super_glue_wsc", quoted | {"span2_index": 3})
    assert record["inputs"] == 'wsc: Loud. "Good for *him* ," he said.'
    with pytest.raises(UserError, match="the pronoun 'she' is not in"):
        _render("super_glue_wsc", quoted | {"span2_text": "she", "span2_index": 3})


@pytest.mark.parametrize(
    ("premise", "hypothesis", "inputs", "noun"),
    [
        ("The fish ate the worm. It was tasty.", "The worm was tasty.",
         "wsc: The fish ate the worm. *It* was tasty.", "The worm"),
        ("Lily spoke to Donna, breaking her silence.", "Lily spoke to Donna, breaking Donna's "
         "silence.", "wsc: Lily spoke to Donna, breaking *her* silence.", "Donna"),
        ("Bob paid for Charlie's degree. He is generous, but he forgot.", "Bob is generous,",
         "wsc: Bob paid for Charlie's degree. *He* is generous, but he forgot.", "Bob"),
        ("The trophy fits no case since it is big. I like it.", "I like the trophy.",
         "wsc: The trophy fits no case since it is big. I like *it* .", "the trophy"),
    ],
)  # fmt: skip
def test_wnli_is_read_as_wsc(premise, hypothesis, inputs, noun):
    row = {"sentence1": premise, "sentence2": hypothesis, "label": 1}
    (record,) = _render("glue_wnli", row, "validation")
    assert (record["inputs"], record["targets"]) == (inputs, noun)
    assert json.loads(record["references"]) == [noun, f"{TAG}label=True"]


def test_squad_pads_punctuation():
    row = {
        "question": "What's the café called?",
        "context": 'The "Café  Noir" (1890).',
        "answers": {"text": ["Café  Noir", '"Café  Noir"'], "answer_start": [5, 4]},
    }
    (record,) = _render("squad", row)
    assert record["inputs"] == (
        'question: What \' s the café called ? context: The " Café Noir " ( 1890 ) .'
    )
    assert record["targets"] == "Café Noir"
    assert json.loads(record["references"]) == ["Café Noir", '" Café Noir "']


@pytest.mark.parametrize(
    "text",
    ["a_b", "Beyoncé’s “hit”—1,5 €", "x\u00a0y\tz\nw\x0bv", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"],
)
def test_padding_is_that_of_t5s_own_expression(text):
    # T5's own: (tf) regex_replace with [[:punct:]], then runs of white space.
    padded = tf.strings.regex_replace(text, "([[:punct:]])", r" \1 ")
    collapsed = tf.strings.regex_replace(padded, r"\s+", " ").numpy().decode()
    assert formats.pad_punctuation(text) == collapsed.strip()


def test_trivia_qa_pairs_contexts_with_the_answers_that_they_hold():
    filler = " ".join(f"w{i}" for i in range(900))
    row = {
        "question": "Which planet?",
        "answer": {"normalized_aliases": ["mars", "red planet", "c++"]},
        "entity_pages": {"wiki_context": [f"{filler} Mars, the red planet {filler}", "Venus"]},
        "search_results": {"search_context": ["It is called MARS."]},
    }
    records = _render("trivia_qa", row)
    assert [r["targets"] for r in records] == ["mars", "red planet", "mars"]
    for record in records:
        start, context = record["inputs"].split(" context: ")
        assert start == "question: Which planet ?"
        assert f" {record['targets']} " in f" {context.lower()} "
        assert len(context.split()) <= formats.CONTEXT_WORDS
        assert json.loads(record["references"])[1:] == ["mars", "red planet", "c + +"]
    assert records[2]["inputs"] == "question: Which planet ? context: It is called MARS ."
    assert len(_render("trivia_qa", row, "validation")) == 1
    # The window is drawn by the seed.
    assert _render("trivia_qa", row) == records
    assert _render("trivia_qa", row, seed=1)[0] != records[0]
    assert _render("trivia_qa", row | {"answer": {"normalized_aliases": ["pluto"]}}) == []
