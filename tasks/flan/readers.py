"""Readers of FLAN's questions: from a row of a data set to the fields that its templates name.

A row has the field names of TFDS. (Those of Hugging Face differ in a few places, and are understood
there.) A reader yields the fields of no, one or several examples. Fields are strings, except for
`options` and `answers`, which are lists. A row without a label, as in a test set whose answers are
not published, yields nothing.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
Fields = dict[str, Any]

SENTIMENT = ("negative", "positive")
_NO_YES = ("no", "yes")
# The answers of three-way entailment, in the order in which they are shown.
_THREE_WAY = ("Yes", "It's impossible to say", "No")


def clean(text: str) -> str:
    """Return a text with HTML's line breaks as newlines, and without space around it."""
    return re.sub(r"<br\s*/?>", "\n", text).strip()


def _chosen(fields: Fields, options: Sequence[str], label: int) -> Iterator[Fields]:
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
        yield from _chosen(fields, options, int(row["label"]))

    return read


def three_way(premise: str, hypothesis: str, order: str) -> Callable[[Row], Iterator[Fields]]:
    """Return a reader of three-way entailment.

    Args:
        premise: The row's name of the premise.
        hypothesis: The row's name of the hypothesis.
        order: What the labels 0, 1 and 2 mean: "e" entailment, "n" neutral, "c" contradiction.
    """
    positions = {"e": 0, "n": 1, "c": 2}
    option_of_label = [positions[letter] for letter in order]

    def read(row: Row) -> Iterator[Fields]:
        fields = {"premise": clean(row[premise]), "hypothesis": clean(row[hypothesis])}
        label = int(row["label"])
        if 0 <= label < 3:
            yield from _chosen(fields, _THREE_WAY, option_of_label[label])

    return read


def anli(row: Row) -> Iterator[Fields]:
    """Read ANLI, whose premise is called `context` in TFDS and `premise` elsewhere."""
    premise = "context" if "context" in row else "premise"
    yield from three_way(premise, "hypothesis", "enc")(row)


def ag_news(row: Row) -> Iterator[Fields]:
    """Read AG News: a title, a text and one of four topics."""
    fields = {"title": clean(row["title"]), "text": clean(row["description"])}
    options = ("World", "Sports", "Business", "Science/Technology")
    yield from _chosen(fields, options, int(row["label"]))


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
    """Read DROP: an answer, and the answers of those who validated it."""
    answers = [clean(row["answer"]), *map(clean, row.get("validated_answers") or ())]
    answers = [answer for answer in dict.fromkeys(answers) if answer]
    if answers:
        yield {
            "context": clean(row["passage"]),
            "question": clean(row["question"]),
            "answer": answers[0],
            "answers": answers,
        }


def multirc(row: Row) -> Iterator[Fields]:
    """Read MultiRC, without its HTML: one answer to a question, right or wrong."""
    fields = {
        "paragraph": " ".join(re.sub(r"<[^>]+>", " ", row["paragraph"]).split()),
        "question": clean(row["question"]),
        "response": clean(row["answer"]),
    }
    yield from _chosen(fields, _NO_YES, int(row["label"]))


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
    yield from _chosen(fields, options, _lettered(row["answerKey"], labels))


def bool_q(row: Row) -> Iterator[Fields]:
    """Read BoolQ. The question loses its question mark, because the templates add one."""
    fields = {
        "title": clean(row["title"]),
        "text": clean(row["passage"]),
        "question": clean(row["question"]).rstrip("?"),
    }
    yield from _chosen(fields, _NO_YES, int(row["answer"]))


def record(row: Row) -> Iterator[Fields]:
    """Read ReCoRD: a cloze query. All right entities are references of one example."""
    options = list(dict.fromkeys(map(clean, row["entities"])))
    unique_answers = dict.fromkeys(map(clean, row["answers"]))
    answers = [answer for answer in unique_answers if answer in options]
    if answers:
        yield {
            "passage": re.sub(r"\s*@highlight\s*", "\n- ", clean(row["passage"])),
            "query": clean(row["query"]).replace("@placeholder", "_____"),
            "options": options,
            "answer": answers[0],
            "answers": answers,
        }


def cosmos_qa(row: Row) -> Iterator[Fields]:
    """Read CosmosQA: a question with four answers."""
    fields = {"context": clean(row["context"]), "question": clean(row["question"])}
    options = [row[f"answer{k}"] for k in range(4)]
    yield from _chosen(fields, options, int(row["label"]))


def trivia_qa(row: Row) -> Iterator[Fields]:
    """Read TriviaQA without its evidence, for closed-book answering."""
    answer = row["answer"]
    answers = list(dict.fromkeys(map(clean, [answer["value"], *answer["aliases"]])))
    if answers[0] and answers[0] != "<unk>":
        yield {"question": clean(row["question"]), "answer": answers[0], "answers": answers}


def natural_questions(row: Row) -> Iterator[Fields]:
    """Read the open version of Natural Questions."""
    answers = list(dict.fromkeys(map(clean, row["answer"])))
    question = clean(row["question"]).rstrip("?").rstrip()
    if answers:
        yield {"question": question, "answer": answers[0], "answers": answers}


def arc(row: Row) -> Iterator[Fields]:
    """Read ARC: a question with three to five choices."""
    choices = row["choices"]
    label = _lettered(row["answerKey"], choices["label"])
    yield from _chosen({"question": clean(row["question"])}, choices["text"], label)


def copa(row: Row) -> Iterator[Fields]:
    """Read COPA. Its `question` is the word "cause" or "effect"."""
    fields = {"premise": clean(row["premise"]), "question": row["question"]}
    yield from _chosen(fields, [row["choice1"], row["choice2"]], int(row["label"]))


def endings(row: Row) -> Iterator[Fields]:
    """Read HellaSwag and StoryCloze: a context and its possible endings."""
    context = clean(row["context"] if "context" in row else row["ctx"])
    label = -1 if row["label"] == "" else int(row["label"])
    yield from _chosen({"context": context}, row["endings"], label)


def piqa(row: Row) -> Iterator[Fields]:
    """Read PIQA: a goal with two solutions."""
    options = [row["sol1"], row["sol2"]]
    yield from _chosen({"goal": clean(row["goal"])}, options, int(row["label"]))


def stsb(row: Row) -> Iterator[Fields]:
    """Read STS-B: the similarity of two sentences, rounded to an integer from 0 to 5."""
    fields = {"sentence1": clean(row["sentence1"]), "sentence2": clean(row["sentence2"])}
    score = float(row["label"])
    label = -1 if score < 0 else int(score + 0.5)
    yield from _chosen(fields, "0 1 2 3 4 5".split(), label)


def sentiment140(row: Row) -> Iterator[Fields]:
    """Read Sentiment140, whose polarity is 0 or 4.

    The neutral tweets (2), which only the test set has, are left out.
    """
    label = {0: 0, 4: 1}.get(int(row["polarity"]), -1)
    yield from _chosen({"text": clean(row["text"])}, SENTIMENT, label)


def dpr(row: Row) -> Iterator[Fields]:
    """Read definite pronoun resolution: a pronoun with two candidates."""
    fields = {"sentence": clean(row["sentence"]), "pronoun": row["pronoun"]}
    yield from _chosen(fields, row["candidates"], int(row["label"]))


def winogrande(row: Row) -> Iterator[Fields]:
    """Read WinoGrande, which has a `label` from 0 in TFDS and an `answer` from 1 elsewhere."""
    label = int(row["label"]) if "label" in row else int(row["answer"] or 0) - 1
    options = [row["option1"], row["option2"]]
    yield from _chosen({"sentence": clean(row["sentence"])}, options, label)


def wsc273(row: Row) -> Iterator[Fields]:
    """Read the 273 Winograd schemas, which are a test set."""
    fields = {"text": clean(row["text"]), "pronoun": row["pronoun_text"]}
    yield from _chosen(fields, [row["option1"], row["option2"]], int(row["label"]))


def quac(row: Row) -> Iterator[Fields]:
    """Read QuAC, which has a question a row in TFDS and a dialog a row elsewhere."""
    fields = {
        "title": clean(row.get("title") or row.get("wikipedia_page_title") or ""),
        "section": clean(row["section_title"]),
        "background": clean(row["background"]),
        "context": clean(row["context"]).removesuffix("CANNOTANSWER").rstrip(),
    }
    if "questions" in row:
        turns = list(zip(row["questions"], row["answers"]["texts"], strict=True))
    else:
        turns = [(row["question"], row["answers"]["text"])]
    for question, texts in turns:
        answers = list(dict.fromkeys(map(clean, texts)))
        if answers:
            yield fields | {"question": clean(question), "answer": answers[0], "answers": answers}


def coqa(row: Row) -> Iterator[Fields]:
    """Read CoQA: an interview is one example, with its questions and answers numbered."""
    texts = row["answers"]["input_text"]
    yield {
        "story": clean(row["story"]),
        "questions": "\n".join(f"{k}. {clean(q)}" for k, q in enumerate(row["questions"], 1)),
        "answers": "\n".join(f"{k}. {clean(a)}" for k, a in enumerate(texts, 1)),
    }


def trec(row: Row) -> Iterator[Fields]:
    """Read TREC: a question and its coarse label, one of six."""
    options = ("description", "entity", "abbreviation", "human", "numeric", "location")
    label = row["label-coarse"] if "label-coarse" in row else row["coarse_label"]
    yield from _chosen({"text": clean(row["text"])}, options, int(label))
