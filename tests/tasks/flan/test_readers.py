"""FLAN 2021: how rows are read, cleaned and filtered."""

import re

import pytest
import tensorflow_datasets as tfds

from ift_jax.sources.tfds import plain
from tasks.flan import prompts
from tasks.flan.datasets import DATASETS
from tasks.flan.option_styles import PLAIN
from tests.tasks.flan.flan_rows import GIVEN, row_of
from tests.tasks.tfds_rows import shaped_row


def _example(name, **changes):
    [fields] = DATASETS[name].read(row_of(name, **changes))
    return fields


@pytest.mark.parametrize("name", DATASETS)
def test_all_templates_of_a_dataset_can_be_filled(name):
    fields = _example(name)
    dataset = DATASETS[name]
    assert ("options" in fields) == dataset.choices
    for template in prompts.groups()[dataset.templates]:
        assert template.needs <= fields.keys(), template
        if not template.inverted:
            assert ("{options}" in template.input) == dataset.choices, template
            assert not re.findall(r"\{(\w+)\}", template.target) == [], template
        texts = [prompts.fill(template, fields, style) for style in (PLAIN, None)]
        for text, target in texts:
            assert text and target and "[[" not in text and "{" not in text
            assert "\n\n\n" not in text and "  " not in text
        if not template.inverted:
            shown = fields.get("answer") or texts[0][1]
            assert {target for _, target in texts} == {shown}
            if dataset.choices:
                assert "OPTIONS:\n- " in texts[0][0] and "OPTIONS" not in texts[1][0]


def test_every_data_set_has_a_row_of_tfds_shape():
    assert GIVEN.keys() == DATASETS.keys()
    with pytest.raises(ValueError, match="hellaswag: TFDS has no 'ctx'; it has context, "):
        shaped_row("hellaswag", ctx="A man")


def test_rows_are_read_as_the_originals_do():
    assert _example("squad_v2")["answers"] == ["unanswerable"]
    assert _example("e2e_nlg")["attributes"] == "name = The Mill, food = Thai"
    assert _example("web_nlg_en")["triples"] == "Anna, lives in, Rome"
    assert _example("coqa")["answers"] == "1. a dog\n2. black"
    assert _example("imdb")["text"] == "Great\n\nfilm."
    assert _example("true_case")["lower"] == "the house, by the sea!"
    assert _example("fix_punct", en="Où? “Là_bas”, he said.")["bare"] == "Où Là_bas he said"
    assert _example("word_segment", en="A\nhouse by it!")["joined"] == "A\nhousebyit!"
    assert _example("word_segment", en="Stop!")["joined"] == "Stop!"
    for name in ("true_case", "fix_punct"):
        assert list(DATASETS[name].read(row_of(name, en="nothing to restore"))) == []


def test_a_missing_word_is_completed_together_with_the_rest():
    record = _example("record")
    assert (record["passage"], record["query"]) == ("Paris beat Lyon.", "It was")
    assert record["options"] == ["Lyon that lost.", "Paris that lost."]
    assert record["answer"] == "Lyon that lost." and record["answers"] == ["Lyon that lost."]
    both = _example("record", query="@placeholder's day", answers=["Lyon", "Paris"])
    assert both["query"] == "" and both["answers"] == ["Lyon's day", "Paris's day"]
    winogrande = _example("winogrande")
    assert winogrande["context"] == "The cup did not fit in the box, as the"
    assert winogrande["options"] == ["cup was big.", "box was big."]
    schema = _example("wsc273")
    assert schema["context"] == "The man lifted his son because"
    assert schema["options"] == ["the man was weak.", "his son was weak."]
    assert schema["answer"] == "his son was weak."


def test_answers_are_those_that_flan_scores():
    trivia = _example("trivia_qa")
    assert trivia["answer"] == "mars" and trivia["answers"] == ["mars", "red planet"]
    assert _example("drop")["answers"] == ["7"]  # Not what the validators said.
    quac = _example("quac")
    assert quac["answers"] == ["in Ohio"] and quac["context"].endswith("CANNOTANSWER")
    unknown = _example("quac", orig_answer={"text": "CANNOTANSWER", "answer_start": 21})
    assert unknown["answer"] == "CANNOTANSWER"


def test_texts_are_cleaned():
    article = "By . Al Bo . PUBLISHED: . 9:00 EST, 1 May 2013 . | . 2 May 2013 . A storm . Rain ."
    assert _example("cnn_dailymail", article=article)["text"] == "A storm . Rain ."
    assert _example("cnn_dailymail", article="(CNN) -- It is 2015 .")["text"] == "It is 2015 ."
    hellaswag = _example(
        "hellaswag",
        context="[header] How to knit [title] Buy wool. [step] Go to a shop.",
        endings=["[substeps] Ask.", "Pay.", "Leave.", "Sit."],
    )
    assert hellaswag["context"] == "How to knit \nBuy wool. \nGo to a shop."
    assert hellaswag["answer"] == "Ask."
    dart = _example("dart")
    assert dart["triples"] == ", CITY, Rome; Anna, HOME, Rome"
    assert dart["triple_lines"] == "[TABLECONTEXT], CITY, Rome\nAnna, HOME, Rome"
    aeslc = _example("aeslc", email_body="Hi,\nlunch?\n", subject_line="Lu\nnch")
    assert (aeslc["body"], aeslc["subject"]) == ("Hi, lunch?", "Lunch")
    samsum = _example("samsum", dialogue="Al: <file_photo>\r\nBo: Hi")
    assert samsum["dialogue"] == "Al:  \nBo: Hi"
    assert _example("qqp", question1='What""s up?')["question1"] == "What's up?"
    yelp = _example("yelp_polarity", text='A \\""great\\"" place.\\nGo!')
    assert yelp["text"] == 'A "great" place. Go!'
    movie = _example("opinion_abstracts_rotten_tomatoes", _movie_name="the_red_mars")
    assert movie["movie"] == "the red mars" and movie["reviews"] == "1. Nothing happens."
    many = {"key": [""] * 12, "value": [f"Reason {k}." for k in range(12)]}
    debate = _example("opinion_abstracts_idebate", _argument_sentences=many)
    assert debate["arguments"].split("\n")[-1] == "10. Reason 9."


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("gigaword", {"document": "UNK left the council ."}),
        ("gigaword", {"summary": "# left the council"}),
        ("arc_easy", {"choices": {"label": [0, 1, 2], "text": ["a", "b", "c"]}}),
        ("arc_challenge", {"choices": {"label": [0, 1, 2, 3, 4], "text": list("abcde")}}),
        ("trivia_qa", {"answer": {"value": "<unk>", "normalized_value": "unk",
                                  "aliases": [], "normalized_aliases": []}}),
        ("sentiment140", {"polarity": 2}),
    ],
)  # fmt: skip
def test_rows_are_filtered(name, changes):
    assert list(DATASETS[name].read(row_of(name))) != []
    assert list(DATASETS[name].read(row_of(name, **changes))) == []


@pytest.mark.parametrize(
    "name", ["dart", "openbookqa", "trivia_qa", "opinion_abstracts_idebate", "quac"]
)
def test_readers_take_what_tfds_gives(name, tmp_path):
    dataset = DATASETS[name]
    with tfds.testing.mock_data(num_examples=3, data_dir=str(tmp_path)):
        builder = tfds.builder(dataset.tfds, data_dir=str(tmp_path), try_gcs=False)
        rows = [plain(row) for row in tfds.as_numpy(builder.as_dataset(split="train"))]
    examples = [fields for row in rows for fields in dataset.read(row)]
    assert len(examples) == 3
    for template in prompts.groups()[dataset.templates]:
        assert all(all(prompts.fill(template, e, PLAIN)) for e in examples)


def test_readers_take_other_copies_of_the_data():
    texts = row_of("arc_easy")["choices"]["text"]
    alike = {
        "openbookqa": {
            "fact1": "ice is frozen water",
            "question": {
                "stem": "Ice is",
                "choices": {"label": list("ABCD"), "text": [f"choice {x}" for x in "ABCD"]},
            },
            "answerKey": "C",
        },
        "arc_easy": row_of(
            "arc_easy", choices={"label": list("ABCD"), "text": texts}, answerKey="A"
        ),
        "winogrande": {k: v for k, v in row_of("winogrande").items() if k != "label"}
        | {"answer": "1"},
        "anli_r1": {"premise": row_of("anli_r1")["context"], **row_of("anli_r1")},
        "wmt14_enfr": {"translation": row_of("wmt14_enfr")},
        "trec": {"text": row_of("trec")["text"], "coarse_label": 3},
        "hellaswag": {"ctx": "She opens the", **row_of("hellaswag"), "label": "0"},
        "opinion_abstracts_idebate": row_of(
            "opinion_abstracts_idebate",
            _argument_sentences=[{"value": "They are loud."}, {"value": "They stink."}],
        ),
    }
    for name, row in alike.items():
        assert list(DATASETS[name].read(row)) == [_example(name)], name
    turns = {
        "questions": ["Where?", "When?"],
        "orig_answers": {"texts": ["in Ohio", "CANNOTANSWER"], "answer_starts": [0, 0]},
    }
    dialogue = {k: v for k, v in row_of("quac").items() if k not in ("question", "orig_answer")}
    answers = [e["answer"] for e in DATASETS["quac"].read(dialogue | turns)]
    assert answers == ["in Ohio", "CANNOTANSWER"]
