"""Readers of FLAN's generation tasks: summaries, texts from data, translations, text formatting.

They are used as those of `tasks.flan.readers`.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tasks.flan.readers import Fields, Row, clean, numbered, renamed

# What ends the dateline of a CNN / Daily Mail article: the year it was updated, or "(CNN) -- ".
_DATELINE_ENDS = ("2013 . ", "2014 . ", "2012 . ", ") -- ")
_MOST_STATEMENTS = 10  # There are up to a hundred reviews of a movie, too many for a prompt.


def aeslc(row: Row) -> Iterator[Fields]:
    """Read an email, whose lines are joined, and its subject."""
    body = row["email_body"].replace("\n", " ")
    subject = row["subject_line"].replace("\n", "")
    yield from renamed(body="body", subject="subject")({"body": body, "subject": subject})


def cnn_dailymail(row: Row) -> Iterator[Fields]:
    """Read an article without what stands before its dateline's end, and its highlights."""
    article = row["article"]
    for end in _DATELINE_ENDS:
        article = article.rpartition(end)[2]
    yield from renamed(text="article", highlights="highlights")({**row, "article": article})


def gigaword(row: Row) -> Iterator[Fields]:
    """Read a sentence and its headline. One with an unknown word or a masked digit is left out."""
    both = row["document"] + row["summary"]
    if "UNK" not in both and "#" not in both:
        yield from renamed(text="document", summary="summary")(row)


def samsum(row: Row) -> Iterator[Fields]:
    """Read a chat, without the placeholders of its files (`<file_photo>`), and its summary."""
    dialogue = re.sub("<.*>", " ", row["dialogue"].replace("\r\n", "\n"))
    yield from renamed(dialogue="dialogue", summary="summary")({**row, "dialogue": dialogue})


def _values(sequence: Any) -> list[str]:
    """Return the `value`s of a sequence of {key, value}: columns in TFDS, rows in JSON."""
    if isinstance(sequence, Mapping):
        return [clean(value) for value in sequence["value"]]
    return [clean(item["value"]) for item in sequence]


def idebate(row: Row) -> Iterator[Fields]:
    """Read the arguments of a debate and the claim that they support."""
    yield {
        "debate": clean(row["_debate_name"]),
        "claim": clean(row["_claim"]),
        "arguments": numbered(_values(row["_argument_sentences"])[:_MOST_STATEMENTS]),
    }


def rotten_tomatoes(row: Row) -> Iterator[Fields]:
    """Read the reviews of a movie and the consensus of the critics."""
    yield {
        "movie": clean(row["_movie_name"].replace("_", " ")),
        "consensus": clean(row["_critic_consensus"]),
        "reviews": numbered(_values(row["_critics"])[:_MOST_STATEMENTS]),
    }


def _texts(fields: Fields, row: Row) -> Iterator[Fields]:
    """Yield the fields with `text`, the target, and `answers`, all references."""
    references = [text.strip() for text in row.get("references") or () if text.strip()]
    target = row["target"].strip() or (references[0] if references else "")
    if target:
        answers = list(dict.fromkeys([target, *references]))
        yield fields | {"text": target, "answers": answers}


def web_nlg(row: Row) -> Iterator[Fields]:
    """Read WebNLG: strings "subject | relation | object", and texts that say the same."""
    triples = [re.sub(r"\s*\|\s*", ", ", triple).replace("_", " ") for triple in row["input"]]
    yield from _texts({"triples": "; ".join(triples)}, row)


def common_gen(row: Row) -> Iterator[Fields]:
    """Read CommonGen: concepts, and sentences that use them."""
    yield from _texts({"concepts": ", ".join(row["concepts"])}, row)


def e2e_nlg(row: Row) -> Iterator[Fields]:
    """Read E2E: a meaning representation "name[value], ...", and texts that say the same."""
    attributes = row["meaning_representation"].replace("[", " = ").replace("]", "")
    yield from _texts({"attributes": clean(attributes)}, row)


def dart(row: Row) -> Iterator[Fields]:
    """Read DART: triples, as lists or strings, and texts that say the same.

    Questions lose the marks of its tables, such as "[TABLECONTEXT]". As in FLAN, triples that are
    a target keep them, and have a line each.
    """
    triples = [
        triple if isinstance(triple, str) else ", ".join(triple) for triple in row["tripleset"]
    ]
    fields = {
        "triples": re.sub(r"\[.*?\]", "", "; ".join(triples)),
        "triple_lines": "\n".join(triples),
    }
    yield from _texts(fields, row)


def translation(code: str, field: str, language: str = "") -> Callable[[Row], Iterator[Fields]]:
    """Return a reader of translation pairs.

    Args:
        code: The code of the language that is paired with English.
        field: Our name of the field with that language's text.
        language: What the templates call the language; "" where they do not name it.
    """

    def read(row: Row) -> Iterator[Fields]:
        pair = row.get("translation", row)
        fields = {"english": clean(pair["en"]), field: clean(pair[code])}
        if all(fields.values()):
            yield fields | ({"language": language} if language else {})

    return read


def true_case(row: Row) -> Iterator[Fields]:
    """Make an example of restoring capitals, if the text has any."""
    text = _english(row)
    lower = text.lower()
    if lower != text:
        yield {"text": text, "lower": lower}


def fix_punct(row: Row) -> Iterator[Fields]:
    """Make an example of restoring punctuation, if the text has any."""
    text = _english(row)
    bare = re.sub(r"[^\w\s]", "", text)
    if bare.strip() and bare != text:
        yield {"text": text, "bare": bare}


def word_segment(row: Row) -> Iterator[Fields]:
    """Make an example of restoring spaces."""
    text = _english(row)
    if text:
        yield {"text": text, "joined": text.replace(" ", "")}


def _english(row: Row) -> str:
    """Return the English side of a pair, as fields (TFDS) or below `translation`."""
    return clean(row.get("translation", row)["en"])
