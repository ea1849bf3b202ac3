"""Readers of FLAN's generation tasks: summaries, texts from data, translations, text formatting.

They are used as those of `tasks.flan.readers`.
"""

import re
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tasks.flan.readers import Fields, Row, clean

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _values(sequence: Any) -> list[str]:
    """Return the `value`s of a sequence of {key, value}: columns in TFDS, rows in JSON."""
    if isinstance(sequence, Mapping):
        return [clean(value) for value in sequence["value"]]
    return [clean(item["value"]) for item in sequence]


def _bullets(texts: Sequence[str]) -> str:
    return "\n".join(f"- {text}" for text in texts)


def idebate(row: Row) -> Iterator[Fields]:
    """Read the arguments of a debate and the claim that they support."""
    yield {
        "debate": clean(row["_debate_name"]),
        "claim": clean(row["_claim"]),
        "arguments": _bullets(_values(row["_argument_sentences"])),
    }


def rotten_tomatoes(row: Row) -> Iterator[Fields]:
    """Read the reviews of a movie and the consensus of the critics."""
    reviews = _values(row["_critics"])[:10]  # There are up to a hundred, too many for a prompt.
    yield {
        "movie": clean(row["_movie_name"]),
        "consensus": clean(row["_critic_consensus"]),
        "reviews": _bullets(reviews),
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
    pairs = re.findall(r"([^\[\],]+)\[([^\]]*)\]", row["meaning_representation"])
    attributes = ", ".join(f"{name.strip()} = {value}" for name, value in pairs)
    yield from _texts({"attributes": attributes or row["meaning_representation"]}, row)


def dart(row: Row) -> Iterator[Fields]:
    """Read DART: triples, as lists or strings, and texts that say the same."""
    triples = [
        triple if isinstance(triple, str) else ", ".join(triple) for triple in row["tripleset"]
    ]
    yield from _texts({"triples": "; ".join(triples)}, row)


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


def _changed(row: Row, field: str, change: Callable[[str], str]) -> Iterator[Fields]:
    """Yield an English sentence and a changed one to restore it from, if it did change."""
    text = clean(row.get("translation", row)["en"])
    changed = change(text)
    if changed and changed != text:
        yield {"text": text, field: changed}


def true_case(row: Row) -> Iterator[Fields]:
    """Make an example of restoring capitals."""
    yield from _changed(row, "lower", str.lower)


def fix_punct(row: Row) -> Iterator[Fields]:
    """Make an example of restoring punctuation."""

    def without_punctuation(text: str) -> str:
        return " ".join(text.translate(_PUNCTUATION).split())

    yield from _changed(row, "bare", without_punctuation)


def word_segment(row: Row) -> Iterator[Fields]:
    """Make an example of restoring spaces."""

    def without_spaces(text: str) -> str:
        return "".join(text.split())

    yield from _changed(row, "joined", without_spaces)
