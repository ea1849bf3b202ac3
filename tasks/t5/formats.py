"""T5's text-to-text formats (Raffel et al. 2020, arXiv:1910.10683): from rows to records.

Each function has a signature that `TfdsRowsSource` asks for: `(row, draws, split)` for a record, or
`(row, split)` for the rows that one row expands to. Rows have the fields of TensorFlow Datasets. A
label is a number or its name. A row without a label (-1, in test splits) gets the target "<unk>".

A reference that begins with `TAG` is no answer but a note for the metric, such as the group of the
example, because a metric sees references and answers and nothing else.
"""

import json
import re
import string
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ift_jax.data.randomness import Draws

Row = dict[str, Any]
Record = dict[str, str]

UNLABELED = "<unk>"
TAG = "\x1f"  # ASCII's unit separator, with which no answer of a model begins.
LANGUAGES = {"en": "English", "de": "German", "fr": "French", "ro": "Romanian"}


def tagged(**tags: object) -> list[str]:
    """Return notes for a metric as references: TAG name=value."""
    return [f"{TAG}{name}={value}" for name, value in tags.items()]


def make_record(inputs: str, targets: str, references: Sequence[str] | None = None) -> Record:
    """Return a record; its references, if any, as a JSON list."""
    record = {"inputs": inputs, "targets": targets}
    if references is not None:
        record["references"] = json.dumps(list(references), ensure_ascii=False)
    return record


def label_name(row: Row, names: Sequence[str]) -> str:
    """Return the name of a row's label, `UNLABELED` if it has none.

    Args:
        row: Its `label` is a number, a name, None, or absent.
        names: The names of the labels 0, 1, ...
    """
    value = row.get("label", -1)
    if isinstance(value, str):
        return value
    if value is None or value < 0:
        return UNLABELED
    return names[int(value)]


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
    """Format a row as the name of the benchmark followed by `key: text` for each key.

    Args:
        row: The row.
        draws: Unused.
        split: Unused.
        name: The name of the benchmark.
        keys: The keys, in the order of the prompt.
        labels: The names of the labels 0, 1, ...
        rename: Pairs of our key and the row's, where they differ. (SuperGLUE's axb is formatted
            like rte.)
    """
    key_of_row = dict(rename)
    parts = [f"{key}: {row[key_of_row.get(key, key)]}" for key in keys]
    return make_record(" ".join([name, *parts]), label_name(row, labels))


def stsb(row: Row, draws: Draws, split: str) -> Record:
    """Format STS-B. The target is the score rounded to the nearest 0.2, in float32 as in T5."""
    inputs = f"stsb sentence1: {row['sentence1']} sentence2: {row['sentence2']}"
    label = np.float32(row["label"])
    rounded = np.round(label * np.float32(5)) / np.float32(5)
    return make_record(inputs, UNLABELED if label < 0 else f"{rounded:.1f}")


def multirc(row: Row, draws: Draws, split: str) -> Record:
    """Format MultiRC, without its HTML. There is an example for each answer.

    The number of the question is a tag, by which the metric groups the answers.
    """
    parts = [f"{key}: {row[key]}" for key in ("question", "answer", "paragraph")]
    inputs = " ".join(["multirc", *parts])
    inputs = re.sub("</?b>", "", inputs.replace("<br>", " "))
    target = label_name(row, ("False", "True"))
    question = f"{row['idx']['paragraph']}/{row['idx']['question']}"
    return make_record(inputs, target, [target, *tagged(question=question)])


def record_rows(row: Row, split: str) -> Iterable[Row]:
    """Expand ReCoRD: in training to a row for each right entity, else to one row.

    (T5 repeats evaluation examples too, and drops the repetitions in the metric.)
    """
    answers = list(dict.fromkeys(row["answers"])) or [UNLABELED]
    if split != "train":
        return [row | {"target": answers[0]}]
    return [row | {"target": answer} for answer in answers]


def record(row: Row, draws: Draws, split: str) -> Record:
    """Format ReCoRD: query, entities, and the passage with its highlights as sentences.

    Every right entity is a reference.
    """
    passage = re.sub("([.?!\"'])\n@highlight\n", r"\1 ", row["passage"])
    passage = passage.replace("\n@highlight\n", ". ")
    entities = ", ".join(row["entities"])
    inputs = f"record query: {row['query']} entities: {entities} passage: {passage}"
    return make_record(inputs, row["target"], list(row["answers"]) or [UNLABELED])


# ASCII's punctuation, which is RE2's [[:punct:]].
_PUNCTUATION = re.compile(f"([{re.escape(string.punctuation)}])")


def pad_punctuation(text: str) -> str:
    """Return the text with spaces around ASCII punctuation.

    This is T5's rule since April 2022. The one before, which the released T5 1.0 saw, split at
    every character but ASCII letters, digits and underscores, also inside of words ("caf é").
    """
    text = _PUNCTUATION.sub(r" \1 ", text)
    return re.sub(r"[ \t\n\f\r]+", " ", text).strip()


def squad(row: Row, draws: Draws, split: str) -> Record:
    """Format SQuAD 1.1: question and context. The target is the first of the reference answers."""
    question = pad_punctuation(row["question"])
    context = pad_punctuation(row["context"])
    answers = [pad_punctuation(text) for text in row["answers"]["text"]]
    return make_record(f"question: {question} context: {context}", answers[0], answers)


# Words of context around a TriviaQA answer. T5 cuts the context by tokens, after tokenizing.
CONTEXT_WORDS = 300


def trivia_qa_rows(row: Row, split: str) -> Iterable[Row]:
    """Expand TriviaQA with evidence to a row for each pair of a context and an answer in it.

    T5 looks for the answer as a regular expression; here it is plain text. Outside of training,
    only the first pair of a question is used.
    """
    contexts = [*row.get("entity_pages", {}).get("wiki_context", [])]
    contexts += row.get("search_results", {}).get("search_context", [])
    answers = [pad_punctuation(text) for text in row["answer"]["normalized_aliases"]]
    pairs = []
    for context in contexts:
        padded = pad_punctuation(context)
        searchable = f" {padded.lower()} "
        for answer in answers:
            if answer and f" {answer.lower()} " in searchable:
                pair = {"question": row["question"], "context": padded, "target": answer}
                pairs.append(pair | {"answers": answers})
        if pairs and split != "train":
            return pairs[:1]
    return pairs


def trivia_qa(row: Row, draws: Draws, split: str) -> Record:
    """Format TriviaQA like SQuAD, with a window of the context that holds the answer.

    The start of the window is drawn, as in T5.
    """
    words = row["context"].split(" ")
    target = row["target"]
    start = _window_start(words, target.split(" "), draws)
    context = " ".join(words[start : start + CONTEXT_WORDS])
    inputs = f"question: {pad_punctuation(row['question'])} context: {context}"
    return make_record(inputs, target, [target, *row["answers"]])


def _window_start(words: Sequence[str], answer: Sequence[str], draws: Draws) -> int:
    """Draw the first word of a window of `CONTEXT_WORDS` words that holds the answer."""
    lower_words = [word.lower() for word in words]
    lower_answer = [word.lower() for word in answer]
    length = len(answer)
    places = (i for i in range(len(words)) if lower_words[i : i + length] == lower_answer)
    place = next(places, 0)
    last = max(min(place, len(words) - CONTEXT_WORDS), 0)
    first = min(max(place + length - CONTEXT_WORDS, 0), last)
    return first + draws.below(last - first + 1)


def summarize(row: Row, draws: Draws, split: str) -> Record:
    """Format CNN / Daily Mail."""
    return make_record(f"summarize: {row['article']}", row["highlights"])


def translate(row: Row, draws: Draws, split: str, *, source: str, target: str) -> Record:
    """Format WMT.

    Args:
        row: The pair, as fields (TFDS) or below `translation` (Hugging Face).
        draws: Unused.
        split: Unused.
        source: The code of the language to translate from.
        target: The code of the language to translate to.
    """
    pair = row.get("translation", row)
    instruction = f"translate {LANGUAGES[source]} to {LANGUAGES[target]}"
    return make_record(f"{instruction}: {pair[source]}", pair[target])
