"""Readers of FLAN's questions: from a row of a data set to the fields that its templates name.

A row has the field names of TFDS. (Those of Hugging Face differ in a few places, and are understood
there.) A reader yields the fields of no, one or several examples. Fields are strings, except for
`options` and `answers`, which are lists. A row without a label, as in a test set whose answers are
not published, yields nothing.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
Fields = dict[str, Any]

SENTIMENT = ("negative", "positive")
_NO_YES = ("no", "yes")
_CHOICES_OF_ARC = 4


def clean(text: str) -> str:
    """Return a text with HTML's line breaks as newlines, and without space around it."""
    return re.sub(r"<br\s*/?>", "\n", text).strip()


def numbered(texts: Iterable[str]) -> str:
    """Return a line for each text, with its number from 1."""
    return "\n".join(f"{number}. {clean(text)}" for number, text in enumerate(texts, 1))


def chosen(fields: Fields, options: Sequence[str], label: int) -> Iterator[Fields]:
    """Yield the fields with options and answer, unless the label stands for none."""
    options = [option.strip() for option in options]
    if 0 <= label < len(options):
        yield fields | {"options": options, "answer": options[label]}


def renamed(**names: str) -> Callable[[Row], Iterator[Fields]]:
    """Return a reader that copies fields. A row with an empty one yields nothing.

    Args:
        **names: Our name of a field = its name in the row.
    """

    def read(row: Row) -> Iterator[Fields]:
        fields = {ours: clean(row[theirs]) for ours, theirs in names.items()}
        if all(fields.values()):
            yield fields

    return read


def labeled(options: Sequence[str], *same: str, **names: str) -> Callable[[Row], Iterator[Fields]]:
    """Return a reader of rows whose integer `label` is the number of an option.

    Args:
        options: The options.
        *same: Fields that have the same name here and in the row.
        **names: Our name of a field = its name in the row.
    """
    names = {name: name for name in same} | names

    def read(row: Row) -> Iterator[Fields]:
        fields = {ours: clean(row[theirs]) for ours, theirs in names.items()}
        yield from chosen(fields, options, int(row["label"]))

    return read


def anli(row: Row) -> Iterator[Fields]:
    """Read ANLI, whose premise is called `context` in TFDS and `premise` elsewhere.

    The labels mean entailment, neutral, contradiction.
    """
    premise = "context" if "context" in row else "premise"
    options = ("Yes", "It's impossible to say", "No")
    yield from labeled(options, "hypothesis", premise=premise)(row)


def qqp(row: Row) -> Iterator[Fields]:
    """Read QQP, in which two double quotation marks stand for an apostrophe."""
    fields = {name: clean(row[name].replace('""', "'")) for name in ("question1", "question2")}
    yield from chosen(fields, _NO_YES, int(row["label"]))


def yelp(row: Row) -> Iterator[Fields]:
    """Read Yelp Polarity, whose texts have escaped quotation marks and line breaks."""
    text = clean(row["text"].replace('\\""', '"').replace("\\n", " "))
    yield from chosen({"text": text}, SENTIMENT, int(row["label"]))


def ag_news(row: Row) -> Iterator[Fields]:
    """Read AG News: a title, a text and one of four topics."""
    fields = {"title": clean(row["title"]), "text": clean(row["description"])}
    options = ("World", "Sports", "Business", "Science/Tech")
    yield from chosen(fields, options, int(row["label"]))


def squad(row: Row) -> Iterator[Fields]:
    """Read SQuAD 1 and 2. The answer to a question without one is "unanswerable"."""
    answers = list(dict.fromkeys(map(clean, row["answers"]["text"]))) or ["unanswerable"]
    yield {
        "title": clean(row["title"]).replace("_", " "),
        "context": clean(row["context"]),
        "question": clean(row["question"]),
        "answer": answers[0],
        "answers": answers,
    }


def drop(row: Row) -> Iterator[Fields]:
    """Read DROP. As in FLAN, the answers of its validators do not count."""
    answer = clean(row["answer"])
    if answer:
        yield {
            "context": clean(row["passage"]),
            "question": clean(row["question"]),
            "answer": answer,
            "answers": [answer],
        }


def multirc(row: Row) -> Iterator[Fields]:
    """Read MultiRC, without its HTML: one answer to a question, right or wrong."""
    fields = {
        "paragraph": " ".join(re.sub(r"<[^>]+>", " ", row["paragraph"]).split()),
        "question": clean(row["question"]),
        "response": clean(row["answer"]),
    }
    yield from chosen(fields, _NO_YES, int(row["label"]))


def _lettered(label: Any, labels: Sequence[Any]) -> int:
    """Return the position of an answer key among the labels, -1 if it is not among them.

    The labels are numbers in TFDS and letters elsewhere.
    """
    labels = list(labels)
    return labels.index(label) if label in labels else -1


def openbookqa(row: Row) -> Iterator[Fields]:
    """Read OpenBookQA, whose choices are a field each in TFDS and lists elsewhere."""
    question = row["question"]
    if "choices" in question:
        options = question["choices"]["text"]
        labels = question["choices"]["label"]
    else:
        options = [question[f"choice_{letter}"] for letter in "ABCD"]
        labels = [0, 1, 2, 3]
    fields = {"fact": clean(row["fact1"]), "question": clean(question["stem"])}
    yield from chosen(fields, options, _lettered(row["answerKey"], labels))


def bool_q(row: Row) -> Iterator[Fields]:
    """Read BoolQ. The question loses its question mark, because the templates add one."""
    fields = {
        "title": clean(row["title"]),
        "text": clean(row["passage"]),
        "question": clean(row["question"]).rstrip("?"),
    }
    yield from chosen(fields, _NO_YES, int(row["answer"]))


def cosmos_qa(row: Row) -> Iterator[Fields]:
    """Read CosmosQA: a question with four answers."""
    fields = {"context": clean(row["context"]), "question": clean(row["question"])}
    options = [row[f"answer{k}"] for k in range(4)]
    yield from chosen(fields, options, int(row["label"]))


def trivia_qa(row: Row) -> Iterator[Fields]:
    """Read TriviaQA without its evidence, for closed-book answering.

    The answers are the normalized ones: lower case, without articles and punctuation.
    """
    answer = row["answer"]
    texts = [answer["normalized_value"], *answer["normalized_aliases"]]
    answers = list(dict.fromkeys(map(clean, texts)))
    if answers[0] and answer["value"] != "<unk>":
        yield {"question": clean(row["question"]), "answer": answers[0], "answers": answers}


def natural_questions(row: Row) -> Iterator[Fields]:
    """Read the open version of Natural Questions."""
    answers = list(dict.fromkeys(map(clean, row["answer"])))
    question = clean(row["question"]).rstrip("?").rstrip()
    if answers:
        yield {"question": question, "answer": answers[0], "answers": answers}


def arc(row: Row) -> Iterator[Fields]:
    """Read ARC. As in FLAN, a question with other than four choices yields nothing."""
    choices = row["choices"]
    if len(choices["text"]) == _CHOICES_OF_ARC:
        label = _lettered(row["answerKey"], choices["label"])
        yield from chosen({"question": clean(row["question"])}, choices["text"], label)


def copa(row: Row) -> Iterator[Fields]:
    """Read COPA. Its `question` is the word "cause" or "effect"."""
    fields = {"premise": clean(row["premise"]), "question": row["question"]}
    yield from chosen(fields, [row["choice1"], row["choice2"]], int(row["label"]))


def piqa(row: Row) -> Iterator[Fields]:
    """Read PIQA: a goal with two solutions."""
    options = [row["sol1"], row["sol2"]]
    yield from chosen({"goal": clean(row["goal"])}, options, int(row["label"]))


def stsb(row: Row) -> Iterator[Fields]:
    """Read STS-B: the similarity of two sentences, rounded to an integer from 0 to 5.

    A score halfway between two integers becomes the even one, as in FLAN.
    """
    fields = {"sentence1": clean(row["sentence1"]), "sentence2": clean(row["sentence2"])}
    score = float(row["label"])
    label = -1 if score < 0 else round(score)
    yield from chosen(fields, "0 1 2 3 4 5".split(), label)


def sentiment140(row: Row) -> Iterator[Fields]:
    """Read Sentiment140, whose polarity is 0 or 4.

    The neutral tweets (2), which only the test set has, are left out.
    """
    label = {0: 0, 4: 1}.get(int(row["polarity"]), -1)
    yield from chosen({"text": clean(row["text"])}, SENTIMENT, label)


def dpr(row: Row) -> Iterator[Fields]:
    """Read definite pronoun resolution: a pronoun with two candidates."""
    fields = {"sentence": clean(row["sentence"]), "pronoun": row["pronoun"]}
    yield from chosen(fields, row["candidates"], int(row["label"]))


def quac(row: Row) -> Iterator[Fields]:
    """Read QuAC, which has a question a row in TFDS and a dialog a row elsewhere.

    The only answer is the original one, which is "CANNOTANSWER" where the context has none. The
    context ends with that word.
    """
    fields = {
        "title": clean(row.get("title") or row.get("wikipedia_page_title") or ""),
        "section": clean(row["section_title"]),
        "background": clean(row["background"]),
        "context": clean(row["context"]),
    }
    if "questions" in row:
        turns = list(zip(row["questions"], row["orig_answers"]["texts"], strict=True))
    else:
        turns = [(row["question"], row["orig_answer"]["text"])]
    for question, text in turns:
        answer = clean(text)
        if answer:
            yield fields | {"question": clean(question), "answer": answer, "answers": [answer]}


def coqa(row: Row) -> Iterator[Fields]:
    """Read CoQA: an interview is one example, with its questions and answers numbered."""
    texts = row["answers"]["input_text"]
    yield {
        "story": clean(row["story"]),
        "questions": numbered(row["questions"]),
        "answers": numbered(texts),
    }


_TREC = ("description", "entity", "abbreviation", "human", "numeric", "location")
# The same types in the order in which Hugging Face numbers them.
_TREC_ELSEWHERE = ("abbreviation", "entity", "description", "human", "location", "numeric")


def trec(row: Row) -> Iterator[Fields]:
    """Read TREC: a question and its coarse label, one of six.

    TFDS's `label-coarse` and Hugging Face's `coarse_label` number the types differently.
    """
    label = int(row["label-coarse"] if "label-coarse" in row else row["coarse_label"])
    if "label-coarse" not in row and label >= 0:
        label = _TREC.index(_TREC_ELSEWHERE[label])
    yield from chosen({"text": clean(row["text"])}, _TREC, label)
