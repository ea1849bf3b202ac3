"""T5's text-to-text formats (Raffel et al. 2020, arXiv:1910.10683): rows in, records out.

Each function has the form that `TfdsRowsSource` asks for: `(row, draws, split)` to a record, or
`(row, split)` to the rows that one row becomes. Rows have the fields of TensorFlow Datasets; a
label is a number, or its name. An unlabelled row (-1, in test splits) gets the target "<unk>".

A reference that begins with `TAG` is no answer but a note for the metric, e.g. an example's
group: metrics see references and answers, nothing else.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ift_jax.data.randomness import Draws
from ift_jax.errors import UserError

Row = dict[str, Any]
Record = dict[str, str]

UNLABELLED = "<unk>"
TAG = "\x1f"  # ASCII's unit separator: no model's answer begins with it.
LANGUAGES = {"en": "English", "de": "German", "fr": "French", "ro": "Romanian"}


def tagged(**tags: object) -> list[str]:
    """Returns the tags as references: TAG name=value."""
    return [f"{TAG}{name}={value}" for name, value in tags.items()]


def _record(inputs: str, targets: str, references: Sequence[str] | None = None) -> Record:
    record = {"inputs": inputs, "targets": targets}
    if references is not None:
        record["references"] = json.dumps(list(references), ensure_ascii=False)
    return record


def _label(row: Row, names: Sequence[str]) -> str:
    value = row.get("label", -1)
    if isinstance(value, str):
        return value
    return UNLABELLED if value is None or value < 0 else names[int(value)]


def classification(
    row: Row,
    draws: Draws,
    split: str,
    *,
    name: str,
    keys: tuple[str, ...],
    labels: tuple[str, ...],
    rename: tuple[tuple[str, str], ...] = (),
) -> Record:
    """The benchmark's name, then `key: text` for each key, in the order given.

    `rename` has (our key, the row's key) where they differ: SuperGLUE's axb is read as rte.
    """
    source = dict(rename)
    parts = [f"{key}: {row[source.get(key, key)]}" for key in keys]
    return _record(" ".join([name, *parts]), _label(row, labels))


def stsb(row: Row, draws: Draws, split: str) -> Record:
    """STS-B: the score, rounded to the nearest 0.2 in float32 as T5 does, is the target."""
    inputs = f"stsb sentence1: {row['sentence1']} sentence2: {row['sentence2']}"
    label = np.float32(row["label"])
    rounded = np.round(label * np.float32(5)) / np.float32(5)
    return _record(inputs, UNLABELLED if label < 0 else f"{rounded:.1f}")


def multirc(row: Row, draws: Draws, split: str) -> Record:
    """MultiRC: an example an answer, HTML removed; the question's number groups the answers."""
    inputs = "multirc " + " ".join(f"{k}: {row[k]}" for k in ("question", "answer", "paragraph"))
    inputs = re.sub("</?b>", "", inputs.replace("<br>", " "))
    target, idx = _label(row, ("False", "True")), row["idx"]
    question = f"{idx['paragraph']}/{idx['question']}"
    return _record(inputs, target, [target, *tagged(question=question)])


def record_rows(row: Row, split: str) -> Iterable[Row]:
    """ReCoRD: in training one example per right entity; else one, scored against them all.

    (T5 repeats evaluation examples too, and drops the repetitions in the metric.)
    """
    answers = list(dict.fromkeys(row["answers"])) or [UNLABELLED]
    if split != "train":
        return [row | {"target": answers[0]}]
    return [row | {"target": answer} for answer in answers]


def record(row: Row, draws: Draws, split: str) -> Record:
    """ReCoRD: query, entities, and the passage with its highlights as sentences."""
    passage = re.sub("([.?!\"'])\n@highlight\n", r"\1 ", row["passage"])
    passage = passage.replace("\n@highlight\n", ". ")
    entities = ", ".join(row["entities"])
    inputs = f"record query: {row['query']} entities: {entities} passage: {passage}"
    return _record(inputs, row["target"], list(row["answers"]) or [UNLABELLED])


def correct_referents(row: Row, split: str) -> Iterable[Row]:
    """WSC trains on the examples whose referent is the right one: the target is the referent."""
    return [row] if split != "train" or row["label"] in (1, True, "True") else []


def wsc(row: Row, draws: Draws, split: str) -> Record:
    """SuperGLUE's WSC: the pronoun between stars; the target is the noun that is asked about.

    In the other splits than train the noun may be the wrong one; the metric compares "answered
    with that noun" with the label.
    """
    words = row["text"].split(" ")
    place, pronoun = int(row["span2_index"]), row["span2_text"]
    # Two rows' indices are off: the pronoun's nearest occurrence is meant.
    found = [i for i, word in enumerate(words) if _bare(word) == pronoun.lower()]
    if not found:
        raise UserError(f"super_glue/wsc.fixed: the pronoun {pronoun!r} is not in {row['text']!r}")
    i = min(found, key=lambda i: abs(i - place))
    words[i] = _starred(words[i])
    referent = row["span1_text"]
    label = _label(row, ("False", "True"))
    return _record("wsc: " + " ".join(words), referent, [referent, *tagged(label=label)])


def definite_pronouns(row: Row, draws: Draws, split: str) -> Record:
    """Definite pronoun resolution, which T5 trains on beside WSC: the right candidate."""
    pattern = f" ({re.escape(row['pronoun'])})([ .,])"
    sentence = re.sub(pattern, r" *\1*\2", row["sentence"], count=1)
    return _record(f"wsc: {sentence}", row["candidates"][int(row["label"])])


_PRONOUNS = {"he", "she", "they", "it", "her", "his", "their", "them", "him"}


def wnli(row: Row, draws: Draws, split: str) -> Record:
    """WNLI read as WSC (for evaluation only): which noun replaced which pronoun?

    The hypothesis is taken apart into words before the noun, the noun, and words after it, so
    that as many words as possible surround a pronoun in the premise.
    """
    premise, hypothesis = row["sentence1"].split(), row["sentence2"].split()
    low, low_h = [_bare(w) for w in premise], [_bare(w) for w in hypothesis]
    best: tuple[int, int, int] = (-1, 0, 0)
    place, noun = -1, ""
    for i in (i for i, word in enumerate(low) if word in _PRONOUNS):
        for start in range(len(hypothesis)):
            before = _common(low[:i][::-1], low_h[:start][::-1])
            if start and not before:
                continue
            for stop in range(start + 1, len(hypothesis) + 1):
                after = _common(low[i + 1 :], low_h[stop:])
                if stop < len(hypothesis) and not after:
                    continue
                score = (before + after, start - stop, i)  # The shortest noun, the last pronoun.
                if score > best:
                    best, place = score, i
                    noun = " ".join(hypothesis[start:stop])
    if place < 0:
        raise UserError(f"glue/wnli: no pronoun in {row['sentence1']!r}")
    noun = re.sub(r"('s|')$", "", noun.rstrip(".,?!"))
    premise[place] = _starred(premise[place])
    label = {"entailment": "True", "not_entailment": "False"}.get(
        _label(row, ("not_entailment", "entailment")), UNLABELLED
    )
    return _record("wsc: " + " ".join(premise), noun, [noun, *tagged(label=label)])


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """Returns how many first words two sequences share."""
    n = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        n += 1
    return n


def _bare(word: str) -> str:
    return word.strip(".,?!;:\"'()").lower()


def _starred(word: str) -> str:
    """Puts stars around a word; punctuation that hangs on it comes apart."""
    match = re.fullmatch(r"(\W*)(.*?)(\W*)", word)
    assert match is not None
    before, bare, after = match.groups()
    return f"{before}*{bare}*" + (f" {after}" if after else "")


def pad_punctuation(text: str) -> str:
    """Returns the text with spaces around whatever is no ASCII letter, digit or underscore."""
    text = re.sub(r"(\W)", r" \1 ", text, flags=re.ASCII)
    return re.sub(r"[ \t\n\f\r]+", " ", text).strip()


def squad(row: Row, draws: Draws, split: str) -> Record:
    """SQuAD 1.1: question and context; the first answer, and all of them as references."""
    inputs = f"question: {pad_punctuation(row['question'])} context: "
    answers = [pad_punctuation(text) for text in row["answers"]["text"]]
    return _record(inputs + pad_punctuation(row["context"]), answers[0], answers)


CONTEXT_WORDS = 300  # Around a TriviaQA answer; T5 cuts the context by tokens, after tokenising.


def trivia_qa_rows(row: Row, split: str) -> Iterable[Row]:
    """TriviaQA with evidence: a row per pair of a context and an answer that it holds.

    T5 takes the answer for a regular expression in this test; here it is text. In the other
    splits than train only a question's first pair is taken.
    """
    contexts = [*row.get("entity_pages", {}).get("wiki_context", [])]
    contexts += row.get("search_results", {}).get("search_context", [])
    answers = [pad_punctuation(text) for text in row["answer"]["normalized_aliases"]]
    pairs = []
    for context in contexts:
        padded = pad_punctuation(context)
        low = f" {padded.lower()} "
        pairs += [
            {"question": row["question"], "context": padded, "target": answer, "answers": answers}
            for answer in answers
            if answer and f" {answer.lower()} " in low
        ]
        if pairs and split != "train":
            return pairs[:1]
    return pairs


def trivia_qa(row: Row, draws: Draws, split: str) -> Record:
    """TriviaQA: the format of SQuAD, with a window of the context that holds the answer.

    Where the window begins is drawn, as T5 draws it.
    """
    words, target = row["context"].split(" "), row["target"]
    length = len(target.split(" "))
    low, wanted = [word.lower() for word in words], target.lower().split(" ")
    places = (i for i in range(len(words)) if low[i : i + length] == wanted)
    at = next(places, 0)
    last = max(min(at, len(words) - CONTEXT_WORDS), 0)
    first = min(max(at + length - CONTEXT_WORDS, 0), last)
    start = first + draws.below(last - first + 1)
    context = " ".join(words[start : start + CONTEXT_WORDS])
    inputs = f"question: {pad_punctuation(row['question'])} context: {context}"
    return _record(inputs, target, [target, *row["answers"]])


def summarize(row: Row, draws: Draws, split: str) -> Record:
    """CNN / Daily Mail."""
    return _record(f"summarize: {row['article']}", row["highlights"])


def translate(row: Row, draws: Draws, split: str, *, source: str, target: str) -> Record:
    """WMT: from one language code to another."""
    pair = row.get("translation", row)  # TFDS has the codes as fields, Hugging Face below one.
    names = LANGUAGES[source], LANGUAGES[target]
    return _record(f"translate {names[0]} to {names[1]}: {pair[source]}", pair[target])
