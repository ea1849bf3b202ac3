"""Quickstart instructions about words, sentences and what they say."""

from collections.abc import Callable, Sequence

from ift_jax.data.randomness import Draws
from tasks.quickstart import words
from tasks.quickstart.instruction import Fields, Instruction

_KINDS = tuple((word, kind) for kind, members in words.CATEGORIES.items() for word in members)


def _each(table: Sequence[Sequence[str]]) -> Callable[[Draws], Fields]:
    """Return a draw of three words of a table of (word, answer), and all their answers."""

    def draw(d: Draws) -> Fields:
        given, answers = zip(*d.sample(table, 3), strict=True)
        return {"list": ", ".join(given), "answer": ", ".join(answers)}

    return draw


def _reversed(d: Draws) -> Fields:
    listed = d.sample(words.SORTABLE, 3)
    return {"list": " ".join(listed), "answer": " ".join(reversed(listed))}


def _sorted(d: Draws) -> Fields:
    listed = d.sample(words.SORTABLE, 3)
    return {"list": " ".join(listed), "answer": " ".join(sorted(listed))}


def _sentiment(d: Draws) -> Fields:
    feeling = d.choice(tuple(words.SENTIMENT))
    form = d.choice(
        ("The {0} was {1}.", "What a {1} {0}.", "{2} had a {1} {0}.", "{2} said the {0} was {1}.")
    )
    thing = d.choice(words.SENTIMENT_THINGS)
    adjective = d.choice(words.SENTIMENT[feeling])
    name = d.choice(words.NAMES)
    return {"text": form.format(thing, adjective, name), "answer": feeling}


def _topic(d: Draws) -> Fields:
    topic = d.choice(tuple(words.TOPICS))
    subjects, verbs, objects = words.TOPICS[topic]
    who = d.choice(subjects.split())
    does = d.choice(verbs.split())
    what = d.choice(objects.split())
    form = d.choice(
        (
            "The {0} {1} the {2}.",
            "Our {0} {1} a {2}.",
            "Today a {0} {1} that {2}.",
            "Every {0} {1} this {2}.",
            "One {0} {1} his {2}.",
        )
    )
    return {"text": form.format(who, does, what), "answer": topic}


def _feeling(d: Draws) -> Fields:
    feeling = d.choice(tuple(words.FEELINGS))
    when = d.choice(("today", "yesterday", "last week", "on Monday", "this morning", "again"))
    name = d.choice(words.NAMES)
    event = d.choice(words.FEELINGS[feeling])
    return {"text": f"{name} {event} {when}.", "answer": feeling}


def _intent(d: Draws) -> Fields:
    intent = d.choice(tuple(words.INTENTS))
    requests, slots = words.INTENTS[intent]
    request = d.choice(requests).format(x=d.choice(slots.split()))
    return {"text": d.choice(words.POLITE).format(x=request), "answer": intent}


def _entailment(d: Draws) -> Fields:
    name = d.choice(words.NAMES)
    color, other = d.sample(words.COLORS, 2)
    thing = d.choice(words.THINGS)
    verb = d.choice(("bought", "lost", "found", "sold"))
    answer = d.choice(("yes", "no", "maybe"))
    quality = d.choice(("old", "new", "cheap", "big", "heavy"))
    said = {"yes": color, "no": other, "maybe": quality}[answer]
    premise = f"{name} {verb} a {color} {thing}."
    return {"premise": premise, "claim": f"The {thing} is {said}.", "answer": answer}


def _visit(d: Draws) -> tuple[str, str, str]:
    """Return a sentence, its colored thing and its city."""
    name = d.choice(words.NAMES)
    color = d.choice(words.COLORS)
    thing = d.choice(words.THINGS)
    city = d.choice(words.CITIES)
    form = d.choice(
        (
            "{0} bought a {1} {2} in {3}.",
            "In {3}, {0} lost a {1} {2}.",
            "A {1} {2} was sent to {3} by {0}.",
            "{0} from {3} has a {1} {2}.",
        )
    )
    return form.format(name, color, thing, city), f"{color} {thing}", city


def _city(d: Draws) -> Fields:
    text, _, city = _visit(d)
    return {"text": text, "answer": city}


def _object(d: Draws) -> Fields:
    text, thing, _ = _visit(d)
    return {"text": text, "answer": thing}


def _reading(ask: str) -> Callable[[Draws], Fields]:
    """Return a draw of a sentence, and of what it says about `ask`: who, where or color."""

    def draw(d: Draws) -> Fields:
        name = d.choice(words.NAMES)
        color = d.choice(words.COLORS)
        animal = d.choice(words.ANIMALS)
        city = d.choice(words.CITIES)
        verb = d.choice(("found", "bought", "sold", "lost"))
        answer = {"who": name, "where": city, "color": color}[ask]
        return {"text": f"{name} {verb} a {color} {animal} in {city}.", "answer": answer}

    return draw


def _zorin(d: Draws) -> tuple[str, str]:
    """Return an English sentence and its translation into the invented language."""
    tables = [words.ZORIN_COLORS, words.ZORIN_ANIMALS, words.ZORIN_VERBS, words.ZORIN_ANIMALS]
    pairs = [d.choice(tuple(table.items())) for table in tables]
    english, zorin = zip(*pairs, strict=True)
    return " ".join(english), " ".join(zorin)


def _to_zorin(d: Draws) -> Fields:
    english, zorin = _zorin(d)
    return {"text": english, "answer": zorin}


def _from_zorin(d: Draws) -> Fields:
    english, zorin = _zorin(d)
    return {"text": zorin, "answer": english}


TEXT_INSTRUCTIONS = (
    Instruction("opposites", "words", (
        "Give the opposite of each word.\n{list}", "{list}\nName the opposites.",
        "What are the opposites?\n{list}", "Turn into the opposite:\n{list}",
    ), _each(words.OPPOSITES), train=2600),
    Instruction("plurals", "words", (
        "Write the plurals.\n{list}", "{list}\nMore than one of each?",
        "What is the plural of each word?\n{list}", "Make these nouns plural:\n{list}",
    ), _each(words.PLURALS), train=1950, validation=120),
    Instruction("categories", "words", (
        "What kind of thing is each?\n{list}", "{list}\nName the categories.",
        "Say which group each word belongs to.\n{list}", "Category of each word:\n{list}",
    ), _each(_KINDS), train=2400),
    Instruction("sort_words", "lists", (
        "Sort by alphabet: {list}", "Now from A to Z: {list}",
        "Put {list} in alphabetical order.", "How would a dictionary order {list}?",
    ), _sorted, train=1950, validation=120),
    Instruction("reverse_words", "lists", (
        "Write backwards: {list}", "Now from last to first: {list}",
        "Put {list} in reverse order.", "How does {list} read backwards?",
    ), _reversed, train=1950, validation=120),
    Instruction("sentiment", "classification", (
        "Is this positive, negative or neutral?\n{text}", "{text}\nGood, bad or neither?",
        "Judge the opinion.\n{text}", "Sentiment of this review:\n{text}",
    ), _sentiment, train=1800),
    Instruction("topic", "classification", (
        "What is this sentence about?\n{text}", "{text}\nName the topic.",
        "Which subject fits?\n{text}", "Choose a heading.\n{text}",
    ), _topic, train=1600, validation=110),
    Instruction("feeling", "classification", (
        "How does the person feel?\n{text}", "{text}\nName the emotion.",
        "Guess the mood.\n{text}", "{text}\nWhat is the feeling?",
    ), _feeling, train=1600),
    Instruction("intent", "classification", (
        "What does the user want?\n{text}", "{text}\nWhich service is asked for?",
        "Type of this request:\n{text}", "Route this to the right app.\n{text}",
    ), _intent, train=1500, validation=100),
    Instruction("entailment", "inference", (
        "{premise}\nIs it true? {claim}", "{premise}\n{claim}\nAnswer yes, no or maybe.",
        "{premise}\nDoes it follow? {claim}", "{premise}\nCan we say this? {claim}",
    ), _entailment),
    Instruction("extract_city", "extraction", (
        "Which city is named?\n{text}", "{text}\nFind the city.",
        "Copy the city from this text.\n{text}", "{text}\nName the town.",
    ), _city),
    Instruction("extract_object", "extraction", (
        "Which object is named?\n{text}", "{text}\nFind the thing and its color.",
        "Copy the object from this text.\n{text}", "{text}\nWhat item is it about?",
    ), _object, train=4000),
    Instruction("to_zorin", "translation", (
        "Translate into Zorin.\n{text}", "{text}\nSay it in Zorin.",
        "How do you say this in Zorin?\n{text}", "English:\n{text}\nZorin:",
    ), _to_zorin, train=4000),
    Instruction("from_zorin", "translation", (
        "Translate from Zorin.\n{text}", "{text}\nSay it in English.",
        "What does this Zorin mean?\n{text}", "Zorin:\n{text}\nEnglish:",
    ), _from_zorin, train=4000),
    Instruction("read_who", "reading", (
        "{text}\nWho was it?", "Who did this?\n{text}",
        "Which person is named?\n{text}", "{text}\nFind the name.",
    ), _reading("who")),
    Instruction("read_where", "reading", (
        "{text}\nWhere was it?", "In which place was this?\n{text}",
        "Which city was it in?\n{text}", "{text}\nName the place.",
    ), _reading("where")),
    Instruction("read_color", "reading", (
        "{text}\nWhich color was it?", "What color does the animal have?\n{text}",
        "Find the color.\n{text}", "{text}\nName the color.",
    ), _reading("color")),
)  # fmt: skip
