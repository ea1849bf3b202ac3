"""Quickstart instructions that need a word's meaning, or a place in a record."""

from collections.abc import Sequence

from ift_jax.data.randomness import Draws
from tasks.quickstart import words
from tasks.quickstart.instruction import Fields, Instruction

N_OPTIONS = 3  # In every prompt that has options.


def options(d: Draws, answer: str, others: Sequence[str]) -> list[str]:
    """Return the answer among `N_OPTIONS` different texts in random order."""
    wrong = [other for other in dict.fromkeys(others) if other != answer]
    return d.sample([answer, *d.sample(wrong, N_OPTIONS - 1)], N_OPTIONS)


def _sentiment(d: Draws) -> Fields:
    feeling = d.choice(tuple(words.SENTIMENT))
    form = d.choice(
        ("The {0} was {1}.", "What a {1} {0}.", "{2} had a {1} {0}.", "{2} said the {0} was {1}.")
    )
    thing = d.choice(words.SENTIMENT_THINGS)
    adjective = d.choice(words.SENTIMENT[feeling])
    text = form.format(thing, adjective, d.choice(words.NAMES))
    return {"text": text, "options": options(d, feeling, tuple(words.SENTIMENT)), "answer": feeling}


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
    text = form.format(who, does, what)
    return {"text": text, "options": options(d, topic, tuple(words.TOPICS)), "answer": topic}


def _feeling(d: Draws) -> Fields:
    feeling = d.choice(tuple(words.FEELINGS))
    when = d.choice(("today", "yesterday", "last week", "on Monday", "this morning", "again"))
    text = f"{d.choice(words.NAMES)} {d.choice(words.FEELINGS[feeling])} {when}."
    return {"text": text, "options": options(d, feeling, tuple(words.FEELINGS)), "answer": feeling}


def _intent(d: Draws) -> Fields:
    intent = d.choice(tuple(words.INTENTS))
    requests, slots = words.INTENTS[intent]
    request = d.choice(requests).format(x=d.choice(slots.split()))
    text = d.choice(words.POLITE).format(x=request)
    return {"text": text, "options": options(d, intent, tuple(words.INTENTS)), "answer": intent}


def _season(d: Draws) -> Fields:
    month = d.below(12)
    day = d.below(28) + 1
    verb = d.choice(("was born", "got married", "moved here", "came back"))
    text = f"{d.choice(words.NAMES)} {verb} on {words.MONTHS[month]} {day}."
    season = words.SEASONS[month]
    return {"text": text, "options": options(d, season, words.SEASONS), "answer": season}


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


def _record_value(d: Draws) -> Fields:
    pools = {"name": words.NAMES, "job": words.JOBS, "city": words.CITIES}
    facts = {key: d.choice(pools[key]) for key in d.sample(tuple(pools), 3)}
    key = d.choice(tuple(facts))
    return {
        "record": "; ".join(f"{name}: {value}" for name, value in facts.items()),
        "key": key,
        "options": options(d, facts[key], tuple(facts.values())),
        "answer": facts[key],
    }


TEXT_INSTRUCTIONS = (
    Instruction("sentiment", "classification", (
        "Is this positive, negative or neutral?\n{text}", "{text}\nGood, bad or neither?",
        "Judge the opinion.\n{text}", "Sentiment of this review:\n{text}",
    ), _sentiment),
    Instruction("topic", "classification", (
        "What is this sentence about?\n{text}", "{text}\nName the topic.",
        "Which subject fits?\n{text}", "Choose a heading.\n{text}",
    ), _topic),
    Instruction("feeling", "classification", (
        "How does the person feel?\n{text}", "{text}\nName the emotion.",
        "Guess the mood.\n{text}", "{text}\nWhat is the feeling?",
    ), _feeling),
    Instruction("intent", "classification", (
        "What does the user want?\n{text}", "{text}\nWhich service is asked for?",
        "Type of this request:\n{text}", "Route this to the right app.\n{text}",
    ), _intent),
    Instruction("season", "dates", (
        "Which season was it?\n{text}", "{text}\nName the season.",
        "Find the time of year.\n{text}", "{text}\nIn which part of the year?",
    ), _season),
    Instruction("entailment", "inference", (
        "{premise}\nIs it true? {claim}", "{premise}\n{claim}\nAnswer yes, no or maybe.",
        "{premise}\nDoes it follow? {claim}", "{premise}\nCan we say this? {claim}",
    ), _entailment),
    Instruction("record_value", "structure", (
        "{record}\nWhat is the {key}?", "{record}\nRead the field {key}.",
        "Get the {key} from this record.\n{record}", "Field {key}:\n{record}",
    ), _record_value),
)  # fmt: skip
