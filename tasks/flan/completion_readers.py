"""Readers of FLAN's data sets that ask how a text goes on.

They are used as those of `tasks.flan.readers`. In ReCoRD, WinoGrande and the Winograd schemas a
word is missing: the text stops before it, and an option is a candidate for it together with the
rest of the sentence, as in FLAN.
"""

import re
from collections.abc import Iterator

from tasks.flan.readers import Fields, Row, chosen, clean

# HellaSwag's marks of a video or a how-to text, such as "[header] " and "[step] ".
_HEADER = re.compile(r"\[header\]\s", re.ASCII)
_MARK = re.compile(r"\[.*?\]\s", re.ASCII)


def record(row: Row) -> Iterator[Fields]:
    """Read ReCoRD: an article without its highlights, and a sentence that an entity completes.

    All right entities are answers of one example.
    """
    before, after = _around(row["query"], "@placeholder")
    options = list(dict.fromkeys(clean(entity + after) for entity in row["entities"]))
    unique_answers = dict.fromkeys(clean(answer + after) for answer in row["answers"])
    answers = [answer for answer in unique_answers if answer in options]
    if answers:
        yield {
            "passage": clean(row["passage"].partition("\n@highlight")[0]),
            "query": clean(before),
            "options": options,
            "answer": answers[0],
            "answers": answers,
        }


def winogrande(row: Row) -> Iterator[Fields]:
    """Read WinoGrande, which has a `label` from 0 in TFDS and an `answer` from 1 elsewhere."""
    label = int(row["label"]) if "label" in row else int(row["answer"] or 0) - 1
    before, after = _around(row["sentence"], "_")
    options = [row["option1"] + after, row["option2"] + after]
    yield from chosen({"context": clean(before)}, options, label)


def wsc273(row: Row) -> Iterator[Fields]:
    """Read the 273 Winograd schemas, which are a test set. The text stops before the pronoun."""
    before = clean(row["text"][: row["pronoun_start"]])
    after = clean(row["text"][row["pronoun_end"] :])
    options = [f"{row[f'option{k}_normalized']} {after}" for k in (1, 2)]
    yield from chosen({"context": before}, options, int(row["label"]))


def hellaswag(row: Row) -> Iterator[Fields]:
    """Read HellaSwag, whose labels count from 0, without its marks in brackets."""
    context = row["context"] if "context" in row else row["ctx"]
    context = _MARK.sub("\n", _HEADER.sub("", context))
    endings = [_MARK.sub("", ending) for ending in row["endings"]]
    label = -1 if row["label"] == "" else int(row["label"])
    yield from chosen({"context": clean(context)}, endings, label)


def story_cloze(row: Row) -> Iterator[Fields]:
    """Read StoryCloze: four sentences of a story and two endings, whose labels count from 1."""
    yield from chosen({"context": clean(row["context"])}, row["endings"], int(row["label"]) - 1)


def _around(text: str, gap: str) -> tuple[str, str]:
    """Return the text before the first gap and the text after it, up to a second gap."""
    before, _, rest = text.partition(gap)
    return before, rest.partition(gap)[0]
