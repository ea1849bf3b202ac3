"""FLAN 2021: the options of every data set, and the answer for every label that TFDS has.

The rows are made from TFDS's own features, so a label that TFDS does not have cannot be tested by
mistake. The options and answers are those of FLAN's own code.
"""

import pytest
import tensorflow as tf

from tasks.flan.datasets import DATASETS
from tests.tasks.flan.flan_rows import row_of
from tests.tasks.tfds_rows import labels_of, shaped_row

_ENTAILED = (("yes", "no"), {"entailment": "yes", "not_entailment": "no"})
_CAPITALIZED = (
    ("Yes", "It's impossible to say", "No"),
    {"e": "Yes", "n": "It's impossible to say", "c": "No"},
)
_LOWER = (
    ("yes", "it is not possible to tell", "no"),
    {"entailment": "yes", "neutral": "it is not possible to tell", "contradiction": "no"},
)
_FALSE_TRUE = (("no", "yes"), {"False": "no", "True": "yes"})
_SENTIMENT = ("negative", "positive")
_TREC = ("description", "entity", "abbreviation", "human", "numeric", "location")
# Data set -> its options in order, and class of TFDS -> answer.
FIXED = {
    "ag_news_subset": (
        ("World", "Sports", "Business", "Science/Tech"),
        {"World": "World", "Sports": "Sports", "Business": "Business", "Sci/Tech": "Science/Tech"},
    ),
    "multirc": _FALSE_TRUE,
    "anli_r1": _CAPITALIZED,
    "anli_r2": _CAPITALIZED,
    "anli_r3": _CAPITALIZED,
    "cb": (
        ("Yes", "No", "It's impossible to say"),
        {"entailment": "Yes", "contradiction": "No", "neutral": "It's impossible to say"},
    ),
    "rte": _ENTAILED,
    "mnli_matched": _LOWER,
    "mnli_mismatched": _LOWER,
    "qnli": _ENTAILED,
    "wnli": (("no", "yes"), {"not_entailment": "no", "entailment": "yes"}),
    "snli": _LOWER,
    "mrpc": (("no", "yes"), {"not_equivalent": "no", "equivalent": "yes"}),
    "qqp": (("no", "yes"), {"not_duplicate": "no", "duplicate": "yes"}),
    "paws_wiki": (("no", "yes"), {"different_meaning": "no", "paraphrase": "yes"}),
    "imdb": (_SENTIMENT, {"neg": "negative", "pos": "positive"}),
    "sentiment140": (_SENTIMENT, {0: "negative", 4: "positive"}),
    "yelp_polarity": (_SENTIMENT, {"1": "negative", "2": "positive"}),
    "sst2": (_SENTIMENT, {"negative": "negative", "positive": "positive"}),
    "wsc": _FALSE_TRUE,
    "wic": (
        ("different meanings", "the same meaning"),
        {"False": "different meanings", "True": "the same meaning"},
    ),
    "cola": (
        ("unacceptable", "acceptable"),
        {"unacceptable": "unacceptable", "acceptable": "acceptable"},
    ),
    "trec": (_TREC, dict(zip(("DESC", "ENTY", "ABBR", "HUM", "NUM", "LOC"), _TREC, strict=True))),
}
_FOUR = ["first.", "second.", "third.", "fourth."]
_ARC = {"text": _FOUR, "label": ["A", "B", "C", "D"]}
# Data set -> fields of a row that hold its options, and label -> answer.
CHOSEN = {
    "openbookqa": (
        {"question": {f"choice_{x}": text for x, text in zip("ABCD", _FOUR, strict=True)}},
        dict(zip("ABCD", _FOUR, strict=True)),
    ),
    "cosmos_qa": (
        {f"answer{k}": text for k, text in enumerate(_FOUR)},
        {str(k): text for k, text in enumerate(_FOUR)},
    ),
    "arc_easy": ({"choices": _ARC}, dict(zip("ABCD", _FOUR, strict=True))),
    "arc_challenge": ({"choices": _ARC}, dict(zip("ABCD", _FOUR, strict=True))),
    "copa": (
        {"choice1": "It broke.", "choice2": "It sang."},
        {"choice1": "It broke.", "choice2": "It sang."},
    ),
    "hellaswag": ({"endings": _FOUR}, dict(enumerate(_FOUR))),
    "story_cloze": ({"endings": ["He ate.", "He flew."]}, {1: "He ate.", 2: "He flew."}),
    "piqa": ({"sol1": "Add ice.", "sol2": "Add sand."}, {"0": "Add ice.", "1": "Add sand."}),
    "definite_pronoun_resolution": ({"candidates": ["Dogs", "cats"]}, {"0": "Dogs", "1": "cats"}),
    "winogrande": (
        {"sentence": "It is the _ that won.", "option1": "cat", "option2": "dog"},
        {"1": "cat that won.", "2": "dog that won."},
    ),
    "wsc273": (
        {
            "text": "Ann asked Sue, but she left.",
            "pronoun_start": 19,
            "pronoun_end": 22,
            "option1_normalized": "Ann",
            "option2_normalized": "Sue",
        },
        {0: "Ann left.", 1: "Sue left."},
    ),
}
_FIELD_OF_LABEL = {
    "sentiment140": "polarity",
    "trec": "label-coarse",
    "openbookqa": "answerKey",
    "arc_easy": "answerKey",
    "arc_challenge": "answerKey",
}
# Data sets that have options but no class to choose: a flag, a score, a list of right entities.
_WITHOUT_CLASSES = {"bool_q", "stsb", "record"}


def _read_label(name, label, **fields):
    row = shaped_row(DATASETS[name].tfds, **{_FIELD_OF_LABEL.get(name, "label"): label}, **fields)
    [example] = DATASETS[name].read(row)
    return example


def test_every_data_set_with_options_is_checked():
    ranked = {name for name, dataset in DATASETS.items() if dataset.choices}
    assert FIXED.keys() | CHOSEN.keys() | _WITHOUT_CLASSES == ranked


@pytest.mark.parametrize("name", FIXED)
def test_labels_have_flans_words_in_flans_order(name):
    options, answers = FIXED[name]
    labels = labels_of(DATASETS[name].tfds, _FIELD_OF_LABEL.get(name, "label"))
    assert list(answers) == labels
    for label in labels:
        example = _read_label(name, label)
        assert tuple(example["options"]) == options
        assert example["answer"] == answers[label]


@pytest.mark.parametrize("name", CHOSEN)
def test_labels_choose_the_option_that_tfds_means(name):
    fields, answers = CHOSEN[name]
    labels = labels_of(DATASETS[name].tfds, _FIELD_OF_LABEL.get(name, "label"))
    assert list(answers) == labels[: len(answers)]  # ARC's fifth class is E.
    for label, answer in answers.items():
        example = _read_label(name, label, **fields)
        assert example["options"] == list(answers.values())
        assert example["answer"] == answer


def test_boolq_answers_the_flag():
    answers = [next(DATASETS["bool_q"].read(row_of("bool_q", answer=x))) for x in (False, True)]
    assert [example["answer"] for example in answers] == ["no", "yes"]
    assert answers[0]["options"] == ["no", "yes"]


def test_stsb_rounds_as_tensorflow_prints():
    scores = [0.0, 0.5, 1.5, 2.5, 3.5, 4.5, 5.0, 0.6, 2.4, 2.6, 4.75]
    got = [next(DATASETS["stsb"].read(row_of("stsb", label=x)))["answer"] for x in scores]
    # FLAN's target is tf.strings.as_string(label, precision=0).
    printed = tf.strings.as_string(tf.constant(scores, tf.float32), precision=0)
    assert got == [text.decode() for text in printed.numpy()]
    assert got[:7] == ["0", "0", "2", "2", "4", "4", "5"]


@pytest.mark.parametrize("name", [*FIXED, *CHOSEN, "stsb"])
def test_a_row_without_a_label_yields_nothing(name):
    field = _FIELD_OF_LABEL.get(name, "label")
    assert list(DATASETS[name].read(row_of(name, **{field: -1}))) == []


def test_hugging_face_numbers_the_types_of_trec_otherwise():
    order = ("abbreviation", "entity", "description", "human", "location", "numeric")
    rows = [{"text": "Who?", "coarse_label": k} for k in range(6)]
    assert [next(DATASETS["trec"].read(row))["answer"] for row in rows] == list(order)
