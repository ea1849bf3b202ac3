"""A made-up row of each data set of FLAN, shaped by TFDS's own features."""

import functools
from typing import Any

from tasks.flan.datasets import DATASETS
from tests.tasks.tfds_rows import shaped_row

_NLI = {"premise": "All doors are red.", "hypothesis": "The front door is red.", "label": 0}
_PAIR = {"sentence1": "He left early.", "sentence2": "He went away early.", "label": 1}
_NEWS = {"document": "The council met on Monday and chose a mayor.", "summary": "Mayor chosen."}
_ENES = {"en": "The House, by the sea!", "es": "La casa, junto al mar."}
_ENDA = {"en": "The House, by the sea!", "da": "Huset ved havet."}
_ARC = {
    "question": "What do plants need?",
    "choices": {"label": [0, 1, 2, 3], "text": ["light", "salt", "oil", "wood"]},
    "answerKey": "A",
}
_QA = {
    "title": "The_Moon",
    "context": "The Moon is 384,400 km away.",
    "question": "How far is the Moon?",
    "answers": {"text": ["384,400 km", "384,400"], "answer_start": [12, 12]},
}
_GEM = {"target": "Anna lives in Rome.", "references": ["Anna lives in Rome.", "Rome is her home."]}


def _wmt(code: str) -> dict[str, str]:
    return {"en": "Good day.", code: f"Good day in {code}."}


# The fields that matter; `row_of` adds the others that TFDS has.
GIVEN = {
    "aeslc": {"email_body": "Lunch is at noon.\nAnn", "subject_line": "Lunch"},
    "cnn_dailymail": {"article": "A storm hit the coast.", "highlights": "Storm on the coast ."},
    "gigaword": _NEWS,
    "multi_news": _NEWS,
    "newsroom": {"text": "It rained.", "summary": "Rain.", "title": "Weather"},
    "samsum": {"dialogue": "Al: Hi\nBo: Hi", "summary": "Al and Bo greet."},
    "xsum": _NEWS,
    "ag_news_subset": {"title": "Cup final", "description": "The team won.", "label": 1},
    "opinion_abstracts_idebate": {
        "_debate_name": "Ban cars?",
        "_claim": "Cars harm cities.",
        "_argument_sentences": {"key": ["0", "1"], "value": ["They are loud.", "They stink."]},
    },
    "opinion_abstracts_rotten_tomatoes": {
        "_movie_name": "Mars",
        "_critic_consensus": "A dull trip.",
        "_critics": {"key": ["0"], "value": ["Nothing happens."]},
    },
    "wiki_lingua_english_en": {"source": "Boil the water, as it kills germs.", "target": "Boil."},
    "web_nlg_en": {"input": ["Anna | lives_in | Rome"], **_GEM},
    "common_gen": {"concepts": ["dog", "ball"], **_GEM},
    "e2e_nlg": {"meaning_representation": "name[The Mill], food[Thai]", **_GEM},
    "dart": {"tripleset": ["[TABLECONTEXT], CITY, Rome", "Anna, HOME, Rome"], **_GEM},
    "squad_v1": _QA,
    "squad_v2": _QA | {"answers": {"text": [], "answer_start": []}, "is_impossible": True},
    "drop": {"passage": "3 and 4.", "question": "Sum?", "answer": "7", "validated_answers": ["8"]},
    "multirc": {"paragraph": "<b>A</b> came.", "question": "Who?", "answer": "A", "label": 1},
    "openbookqa": {
        "fact1": "ice is frozen water",
        "question": {
            "stem": "Ice is",
            **{f"choice_{letter}": f"choice {letter}" for letter in "ABCD"},
        },
        "answerKey": 2,
    },
    "bool_q": {"title": "Tea", "passage": "Tea is hot.", "question": "is tea hot", "answer": True},
    "record": {
        "passage": "Paris beat Lyon.\n@highlight\nA big day",
        "query": "It was @placeholder that lost.",
        "entities": ["Lyon", "Paris"],
        "answers": ["Lyon"],
    },
    "cosmos_qa": {
        "context": "I lost my keys.",
        "question": "Why upset?",
        **{f"answer{k}": f"reason {k}" for k in range(4)},
        "label": 3,
    },
    "trivia_qa": {
        "question": "Which planet is red?",
        "answer": {
            "value": "Mars!",
            "aliases": ["Mars!", "The Red Planet"],
            "normalized_value": "mars",
            "normalized_aliases": ["mars", "red planet"],
        },
    },
    "natural_questions": {"question": "who wrote emma", "answer": ["Jane Austen", "Austen"]},
    "arc_easy": _ARC,
    "arc_challenge": _ARC,
    "copa": {
        "premise": "The glass fell.",
        "choice1": "It broke.",
        "choice2": "It sang.",
        "question": "effect",
        "label": 0,
    },
    "hellaswag": {"context": "She opens the", "endings": ["door.", "sea.", "a.", "b."], "label": 0},
    # TFDS's labels are the numbers 1 and 2 of the published file.
    "story_cloze": {"context": "Tom was hungry.", "endings": ["He ate.", "He flew."], "label": 1},
    "piqa": {"goal": "Cool a drink", "sol1": "Add ice.", "sol2": "Add sand.", "label": 0},
    **{
        f"anli_{r}": {"context": _NLI["premise"], "hypothesis": _NLI["hypothesis"], "label": 2}
        for r in ("r1", "r2", "r3")
    },
    "cb": _NLI | {"hypothesis": "the front door is red", "label": 1},
    "rte": _NLI,
    "mnli_matched": _NLI | {"label": 1},
    "mnli_mismatched": _NLI | {"label": 2},
    "qnli": {"question": "Who came?", "sentence": "Ann came.", "label": 0},
    "wnli": _PAIR,
    "snli": _NLI,
    "mrpc": _PAIR,
    "qqp": {"question1": "How old is she?", "question2": "What is her age?", "label": 1},
    "paws_wiki": _PAIR | {"label": 0},
    "stsb": _PAIR | {"label": 3.5},
    "imdb": {"text": "Great<br /><br />film.", "label": 1},
    "sentiment140": {"text": "yay", "polarity": 4},
    "yelp_polarity": {"text": "Cold soup.", "label": 0},
    "sst2": {"sentence": "a charming film", "label": 1},
    "definite_pronoun_resolution": {
        "sentence": "Dogs chase cats because they run.",
        "pronoun": "they",
        "candidates": ["Dogs", "cats"],
        "label": 1,
    },
    "winogrande": {
        "sentence": "The cup did not fit in the box, as the _ was big.",
        "option1": "cup",
        "option2": "box",
        "label": 0,
    },
    "wsc": {
        "text": "Ann ran as she was late.",
        "span1_text": "Ann",
        "span2_text": "she",
        "label": 1,
    },
    "wsc273": {
        "text": "The man lifted his son because he was weak.",
        "pronoun_text": "he",
        "pronoun_start": 31,
        "pronoun_end": 33,
        "option1": "The man",
        "option1_normalized": "the man",
        "option2": "His son",
        "option2_normalized": "his son",
        "label": 1,
    },
    "para_crawl_enes": _ENES,
    "wmt14_enfr": _wmt("fr"),
    **{f"wmt16_translate_{code}en": _wmt(code) for code in ("de", "tr", "cs", "fi", "ro", "ru")},
    "quac": {
        "title": "Ann Lee",
        "section_title": "Early life",
        "background": "A singer.",
        "context": "She was born in Ohio. CANNOTANSWER",
        "question": "Where was she born?",
        "answers": {"text": ["Ohio", "in Ohio"], "answer_start": [0, 0]},
        "orig_answer": {"text": "in Ohio", "answer_start": 0},
    },
    "coqa": {
        "story": "Bo has a dog. It is black.",
        "questions": ["What has Bo?", "Which color?"],
        "answers": {"input_text": ["a dog", "black"], "answer_start": [0, 0]},
    },
    "true_case": _ENDA,
    "fix_punct": _ENDA,
    "word_segment": _ENDA,
    "math_dataset": {"question": "Solve 2*x = 6 for x.", "answer": "3"},
    "wic": {"word": "bank", "sentence1": "A river bank.", "sentence2": "A bank loan.", "label": 0},
    "cola": {"sentence": "He sleep.", "label": 0},
    "trec": {"text": "Who was Pelé?", "label-coarse": 3},
}


@functools.cache
def _shaped(name: str) -> dict[str, Any]:
    return shaped_row(DATASETS[name].tfds, **GIVEN[name])


def row_of(name: str, **changes: Any) -> dict[str, Any]:
    """Return the row of a data set with all fields of TFDS, after some changes."""
    return _shaped(name) | changes
