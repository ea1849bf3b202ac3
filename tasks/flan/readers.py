"""Rows of the datasets of FLAN -> the fields that their templates name.

A reader gets a row with TFDS's field names (Hugging Face's differ in few places, and are
understood there) and yields the fields of no, one or several examples: strings, but `options`
and `answers`, which are lists. A row without a label (a blind test set's) yields nothing.
"""

import re
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ift_jax.metrics import exact_match

Row = Mapping[str, Any]
Fields = dict[str, Any]

CHOICES: Mapping[str, Any] = {
    "choices": True,
    "references": False,
    "metrics": (exact_match,),
}
SENTIMENT = ("negative", "positive")
_NO_YES = ("no", "yes")
# The three answers, in the order in which they are shown.
_THREE_WAY = ("Yes", "It's impossible to say", "No")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _clean(text: str) -> str:
    return re.sub(r"<br\s*/?>", "\n", text).strip()


def _chosen(fields: Fields, options: Sequence[str], label: int) -> Iterator[Fields]:
    """Yields the fields with options and answer, unless there is no label."""
    options = [option.strip() for option in options]
    if 0 <= label < len(options):
        yield fields | {"options": options, "answer": options[label]}


def renamed(**names: str) -> Callable[[Row], Iterator[Fields]]:
    """Reads our field = the row's, as they are; a row with an empty one is left out."""

    def read(row: Row) -> Iterator[Fields]:
        fields = {ours: _clean(row[theirs]) for ours, theirs in names.items()}
        if all(fields.values()):
            yield fields

    return read


def labelled(options: Sequence[str], *same: str, **names: str) -> Callable[[Row], Iterator[Fields]]:
    """Reads a row with an integer `label`, which numbers the options."""
    names = {name: name for name in same} | names

    def read(row: Row) -> Iterator[Fields]:
        fields = {ours: _clean(row[theirs]) for ours, theirs in names.items()}
        yield from _chosen(fields, options, int(row["label"]))

    return read


def three_way(premise: str, hypothesis: str, order: str) -> Callable[[Row], Iterator[Fields]]:
    """Reads three-way entailment; `order` says what labels 0, 1, 2 are: e, n or c."""
    answers = {"e": 0, "n": 1, "c": 2}
    labels = [answers[letter] for letter in order.lower()]

    def read(row: Row) -> Iterator[Fields]:
        fields = {"premise": _clean(row[premise]), "hypothesis": _clean(row[hypothesis])}
        if 0 <= int(row["label"]) < 3:
            yield from _chosen(fields, _THREE_WAY, labels[int(row["label"])])

    return read


def anli(row: Row) -> Iterator[Fields]:
    """ANLI: the premise is called `context` in TFDS, `premise` elsewhere."""
    premise = "context" if "context" in row else "premise"
    yield from three_way(premise, "hypothesis", "enc")(row)


def ag_news(row: Row) -> Iterator[Fields]:
    """AG News: the title, the text, one of four topics."""
    fields = {"title": _clean(row["title"]), "text": _clean(row["description"])}
    options = ("World", "Sports", "Business", "Science/Technology")
    yield from _chosen(fields, options, int(row["label"]))


def _values(sequence: Any) -> list[str]:
    """The `value`s of a sequence of {key, value}, as TFDS (columns) or JSON (rows) give it."""
    if isinstance(sequence, Mapping):
        return [_clean(value) for value in sequence["value"]]
    return [_clean(item["value"]) for item in sequence]


def _bullets(texts: Sequence[str]) -> str:
    return "\n".join(f"- {text}" for text in texts)


def idebate(row: Row) -> Iterator[Fields]:
    """Arguments of a debate, and the claim that they support."""
    yield {
        "debate": _clean(row["_debate_name"]),
        "claim": _clean(row["_claim"]),
        "arguments": _bullets(_values(row["_argument_sentences"])),
    }


def rotten_tomatoes(row: Row) -> Iterator[Fields]:
    """Reviews of a movie, and the critics' consensus."""
    reviews = _values(row["_critics"])[:10]  # Of up to a hundred: they have to fit.
    yield {
        "movie": _clean(row["_movie_name"]),
        "consensus": _clean(row["_critic_consensus"]),
        "reviews": _bullets(reviews),
    }


def _texts(fields: Fields, row: Row) -> Iterator[Fields]:
    """Yields fields with `text` the target, and `answers` all references."""
    references = [text.strip() for text in row.get("references") or () if text.strip()]
    target = row["target"].strip() or (references[0] if references else "")
    if target:
        answers = list(dict.fromkeys([target, *references]))
        yield fields | {"text": target, "answers": answers}


def web_nlg(row: Row) -> Iterator[Fields]:
    """WebNLG: "subject | relation | object" strings, and texts."""
    triples = [re.sub(r"\s*\|\s*", ", ", triple).replace("_", " ") for triple in row["input"]]
    yield from _texts({"triples": "; ".join(triples)}, row)


def common_gen(row: Row) -> Iterator[Fields]:
    """CommonGen: concepts, and sentences with them."""
    yield from _texts({"concepts": ", ".join(row["concepts"])}, row)


def e2e_nlg(row: Row) -> Iterator[Fields]:
    """E2E: a meaning representation "name[value], ...", and texts."""
    pairs = re.findall(r"([^\[\],]+)\[([^\]]*)\]", row["meaning_representation"])
    attributes = ", ".join(f"{name.strip()} = {value}" for name, value in pairs)
    yield from _texts({"attributes": attributes or row["meaning_representation"]}, row)


def dart(row: Row) -> Iterator[Fields]:
    """DART: triples, as lists or strings, and texts."""
    triples = [t if isinstance(t, str) else ", ".join(t) for t in row["tripleset"]]
    yield from _texts({"triples": "; ".join(triples)}, row)


def squad(row: Row) -> Iterator[Fields]:
    """SQuAD 1 and 2; a question without an answer has "unanswerable"."""
    answers = list(dict.fromkeys(map(_clean, row["answers"]["text"]))) or ["unanswerable"]
    yield {
        "title": _clean(row["title"]).replace("_", " "),
        "context": _clean(row["context"]),
        "question": _clean(row["question"]),
        "answer": answers[0],
        "answers": answers,
    }


def drop(row: Row) -> Iterator[Fields]:
    """DROP: one answer, and those of the validators."""
    answers = [_clean(row["answer"]), *map(_clean, row.get("validated_answers") or ())]
    answers = [answer for answer in dict.fromkeys(answers) if answer]
    if answers:
        yield {
            "context": _clean(row["passage"]),
            "question": _clean(row["question"]),
            "answer": answers[0],
            "answers": answers,
        }


def multirc(row: Row) -> Iterator[Fields]:
    """MultiRC: one answer of a question, right or not; without its HTML."""
    fields = {
        "paragraph": " ".join(re.sub(r"<[^>]+>", " ", row["paragraph"]).split()),
        "question": _clean(row["question"]),
        "response": _clean(row["answer"]),
    }
    yield from _chosen(fields, _NO_YES, int(row["label"]))


def _lettered(label: Any, labels: Sequence[Any]) -> int:
    """The position of an answer key among the labels: numbers in TFDS, letters elsewhere."""
    labels = list(labels)
    return labels.index(label) if label in labels else -1


def openbookqa(row: Row) -> Iterator[Fields]:
    """OpenBookQA: choices by field in TFDS, in lists elsewhere."""
    question = row["question"]
    if "choices" in question:
        options, labels = question["choices"]["text"], question["choices"]["label"]
    else:
        options, labels = [question[f"choice_{letter}"] for letter in "ABCD"], [0, 1, 2, 3]
    fields = {"fact": _clean(row["fact1"]), "question": _clean(question["stem"])}
    yield from _chosen(fields, options, _lettered(row["answerKey"], labels))


def bool_q(row: Row) -> Iterator[Fields]:
    """BoolQ: a question without its mark, which the templates add."""
    fields = {
        "title": _clean(row["title"]),
        "text": _clean(row["passage"]),
        "question": _clean(row["question"]).rstrip("?"),
    }
    yield from _chosen(fields, _NO_YES, int(row["answer"]))


def record(row: Row) -> Iterator[Fields]:
    """ReCoRD: a cloze query; one example a row, all gold entities as references."""
    options = list(dict.fromkeys(map(_clean, row["entities"])))
    answers = [a for a in dict.fromkeys(map(_clean, row["answers"])) if a in options]
    if answers:
        yield {
            "passage": re.sub(r"\s*@highlight\s*", "\n- ", _clean(row["passage"])),
            "query": _clean(row["query"]).replace("@placeholder", "_____"),
            "options": options,
            "answer": answers[0],
            "answers": answers,
        }


def cosmos_qa(row: Row) -> Iterator[Fields]:
    """CosmosQA: four answers."""
    fields = {"context": _clean(row["context"]), "question": _clean(row["question"])}
    yield from _chosen(fields, [row[f"answer{k}"] for k in range(4)], int(row["label"]))


def trivia_qa(row: Row) -> Iterator[Fields]:
    """TriviaQA without its evidence: closed-book."""
    answer = row["answer"]
    answers = list(dict.fromkeys(map(_clean, [answer["value"], *answer["aliases"]])))
    if answers[0] and answers[0] != "<unk>":
        yield {"question": _clean(row["question"]), "answer": answers[0], "answers": answers}


def natural_questions(row: Row) -> Iterator[Fields]:
    """Natural Questions, open."""
    answers = list(dict.fromkeys(map(_clean, row["answer"])))
    question = _clean(row["question"]).rstrip("?").rstrip()
    if answers:
        yield {"question": question, "answer": answers[0], "answers": answers}


def arc(row: Row) -> Iterator[Fields]:
    """ARC: three to five choices."""
    choices = row["choices"]
    label = _lettered(row["answerKey"], choices["label"])
    yield from _chosen({"question": _clean(row["question"])}, choices["text"], label)


def copa(row: Row) -> Iterator[Fields]:
    """COPA: `question` is "cause" or "effect"."""
    fields = {"premise": _clean(row["premise"]), "question": row["question"]}
    yield from _chosen(fields, [row["choice1"], row["choice2"]], int(row["label"]))


def endings(row: Row) -> Iterator[Fields]:
    """HellaSwag and StoryCloze: a context and its possible endings."""
    context = _clean(row["context"] if "context" in row else row["ctx"])
    label = row["label"]
    label = -1 if label == "" else int(label)
    yield from _chosen({"context": context}, row["endings"], label)


def piqa(row: Row) -> Iterator[Fields]:
    """PIQA: two solutions."""
    options = [row["sol1"], row["sol2"]]
    yield from _chosen({"goal": _clean(row["goal"])}, options, int(row["label"]))


def stsb(row: Row) -> Iterator[Fields]:
    """STS-B: the similarity, rounded to one of 0 to 5."""
    fields = {"sentence1": _clean(row["sentence1"]), "sentence2": _clean(row["sentence2"])}
    score = float(row["label"])
    label = -1 if score < 0 else int(score + 0.5)
    yield from _chosen(fields, "0 1 2 3 4 5".split(), label)


def sentiment140(row: Row) -> Iterator[Fields]:
    """Polarity 0 or 4; the neutral tweets (2), of the test set alone, are left out."""
    label = {0: 0, 4: 1}.get(int(row["polarity"]), -1)
    yield from _chosen({"text": _clean(row["text"])}, SENTIMENT, label)


def dpr(row: Row) -> Iterator[Fields]:
    """Definite pronouns: two candidates."""
    fields = {"sentence": _clean(row["sentence"]), "pronoun": row["pronoun"]}
    yield from _chosen(fields, row["candidates"], int(row["label"]))


def winogrande(row: Row) -> Iterator[Fields]:
    """WinoGrande: `label` from 0 in TFDS, `answer` from 1 elsewhere."""
    label = int(row["label"]) if "label" in row else int(row["answer"] or 0) - 1
    options = [row["option1"], row["option2"]]
    yield from _chosen({"sentence": _clean(row["sentence"])}, options, label)


def wsc273(row: Row) -> Iterator[Fields]:
    """The 273 Winograd schemas: a test set."""
    fields = {"text": _clean(row["text"]), "pronoun": row["pronoun_text"]}
    yield from _chosen(fields, [row["option1"], row["option2"]], int(row["label"]))


def translation(code: str, field: str, language: str = "") -> Callable[[Row], Iterator[Fields]]:
    """Reads pairs of English and the language with this code."""

    def read(row: Row) -> Iterator[Fields]:
        pair = row.get("translation", row)
        fields = {"english": _clean(pair["en"]), field: _clean(pair[code])}
        if all(fields.values()):
            yield fields | ({"language": language} if language else {})

    return read


def quac(row: Row) -> Iterator[Fields]:
    """QuAC: one question a row in TFDS, one dialogue a row elsewhere."""
    fields = {
        "title": _clean(row.get("title") or row.get("wikipedia_page_title") or ""),
        "section": _clean(row["section_title"]),
        "background": _clean(row["background"]),
        "context": _clean(row["context"]).removesuffix("CANNOTANSWER").rstrip(),
    }
    if "questions" in row:
        turns = list(zip(row["questions"], row["answers"]["texts"], strict=True))
    else:
        turns = [(row["question"], row["answers"]["text"])]
    for question, texts in turns:
        answers = list(dict.fromkeys(map(_clean, texts)))
        if answers:
            yield fields | {"question": _clean(question), "answer": answers[0], "answers": answers}


def coqa(row: Row) -> Iterator[Fields]:
    """CoQA: a whole interview is one example, questions and answers numbered."""
    texts = row["answers"]["input_text"]
    yield {
        "story": _clean(row["story"]),
        "questions": "\n".join(f"{k}. {_clean(q)}" for k, q in enumerate(row["questions"], 1)),
        "answers": "\n".join(f"{k}. {_clean(a)}" for k, a in enumerate(texts, 1)),
    }


def _changed(row: Row, field: str, change: Callable[[str], str]) -> Iterator[Fields]:
    """Yields an English sentence and what is to be undone; none where nothing was changed."""
    text = _clean(row.get("translation", row)["en"])
    changed = change(text)
    if changed and changed != text:
        yield {"text": text, field: changed}


def true_case(row: Row) -> Iterator[Fields]:
    """Restoring capitals."""
    yield from _changed(row, "lower", str.lower)


def fix_punct(row: Row) -> Iterator[Fields]:
    """Restoring punctuation."""
    yield from _changed(row, "bare", lambda text: " ".join(text.translate(_PUNCTUATION).split()))


def word_segment(row: Row) -> Iterator[Fields]:
    """Restoring spaces."""
    yield from _changed(row, "joined", lambda text: "".join(text.split()))


def trec(row: Row) -> Iterator[Fields]:
    """TREC: the coarse label, of six."""
    options = ("description", "entity", "abbreviation", "human", "numeric", "location")
    label = row["label-coarse"] if "label-coarse" in row else row["coarse_label"]
    yield from _chosen({"text": _clean(row["text"])}, options, int(label))
