"""Quickstart instructions about numbers, dates, units and structured data."""

import json

from ift_jax.data.randomness import Draws
from tasks.quickstart import words
from tasks.quickstart.instruction import Fields, Instruction


def _facts(d: Draws) -> dict[str, str]:
    """Return a person's facts in random order."""
    facts = {"name": words.NAMES, "job": words.JOBS, "city": words.CITIES}
    return {key: d.choice(facts[key]) for key in d.sample(tuple(facts), 3)}


def _compact(facts: dict[str, str]) -> str:
    return json.dumps(facts, separators=(",", ":"))


def _json_value(d: Draws) -> Fields:
    facts = _facts(d)
    key = d.choice(tuple(facts))
    return {"json": _compact(facts), "key": key, "answer": facts[key]}


def _json_to_sentence(d: Draws) -> Fields:
    facts = _facts(d)
    return {"json": _compact(facts), "answer": "{name} is a {job} in {city}.".format_map(facts)}


def _short_date(d: Draws) -> Fields:
    weekday = d.choice(words.DAYS)
    month = d.below(12)
    day = d.below(30) + 1
    text = f"{weekday}, {words.MONTHS[month]} {day}"
    return {"date": text, "answer": f"{weekday[:3]} {day}/{month + 1}"}


def _season(d: Draws) -> Fields:
    month = d.below(12)
    day = d.below(28) + 1
    verb = d.choice(("was born", "got married", "moved here", "came back"))
    text = f"{d.choice(words.NAMES)} {verb} on {words.MONTHS[month]} {day}."
    return {"text": text, "answer": words.SEASONS[month]}


def _weekday(d: Draws) -> Fields:
    start = d.below(7)
    days = d.below(3) + 1
    first = d.choice(("came", "called"))
    then = d.choice(("leaves", "returns", "starts", "moves", "pays"))
    later = "the next day" if days == 1 else f"{words.NUMBER_WORDS[days]} days later"
    text = f"{d.choice(words.NAMES)} {first} on {words.DAYS[start]} and {then} {later}."
    return {"text": text, "answer": words.DAYS[(start + days) % 7]}


def _units(d: Draws) -> Fields:
    large, small, factor = d.choice(words.UNITS)
    n = d.below(5) + 2
    verb = d.choice(
        ("has", "counts", "plans", "says", "wants", "needs", "gets", "asks for", "takes")
    )
    text = f"{d.choice(words.NAMES)} {verb} {n} {large}."
    return {"text": text, "unit": small, "answer": f"{n * factor} {small}"}


# Minutes, and how they are said with the hour.
_CLOCK_TIMES = (("00", "{0} o'clock"), ("15", "quarter past {0}"), ("30", "half past {0}"))
_EVENTS = tuple("train bus film lesson match party flight shop talk show game meal".split())


def _clock(d: Draws) -> Fields:
    hour = d.below(12) + 1
    minute, spoken = d.choice(_CLOCK_TIMES)
    what = d.choice(_EVENTS)
    verb = d.choice(("starts", "ends", "opens", "is due", "was over", "began", "is", "comes"))
    text = f"The {what} {verb} at {spoken.format(words.NUMBER_WORDS[hour])}."
    return {"text": text, "answer": f"{hour}:{minute}"}


_COUNTED = ("hats", "books", "cups", "lamps", "bags", "balls")


def _add(d: Draws) -> Fields:
    had = d.below(6) + 1
    more = d.below(6) + 1
    form = d.choice(
        (
            "{0} has {1} {2} and gets {3} more.",
            "{0} finds {1} {2} and then {3} more.",
            "{0} had {1} {2}. Now {3} are added.",
        )
    )
    name = d.choice(words.NAMES)
    things = d.choice(_COUNTED)
    return {"text": form.format(name, had, things, more), "answer": had + more}


def _take(d: Draws) -> Fields:
    left = d.below(6) + 1
    lost = d.below(4) + 1
    form = d.choice(
        (
            "{0} has {1} {2} and loses {3}.",
            "{0} buys {1} {2} and gives away {3}.",
            "{0} had {1} {2}. Then {3} broke.",
        )
    )
    name = d.choice(words.NAMES)
    things = d.choice(_COUNTED)
    return {"text": form.format(name, left + lost, things, lost), "answer": left}


DATA_INSTRUCTIONS = (
    Instruction("json_value", "structure", (
        "{json}\nWhat is the {key}?", "{json}\nRead the field {key}.",
        "Get the {key} from this record.\n{json}", "Field {key}:\n{json}",
    ), _json_value, train=4000),
    Instruction("json_to_sentence", "structure", (
        "Write a sentence from this.\n{json}", "{json}\nSay this in words.",
        "Turn this record into text.\n{json}", "Describe:\n{json}",
    ), _json_to_sentence, train=4000),
    Instruction("short_date", "dates", (
        "Write this date in short form.\n{date}", "{date}\nGive day/month.",
        "Shorten this date:\n{date}", "{date}\nNow in numbers.",
    ), _short_date, train=2200, validation=130),
    Instruction("season", "dates", (
        "Which season was it?\n{text}", "{text}\nName the season.",
        "Find the time of year.\n{text}", "{text}\nIn which part of the year?",
    ), _season, train=2200),
    Instruction("weekday", "dates", (
        "Which day is the second one?\n{text}", "{text}\nOn which day is that?",
        "Work out the later day.\n{text}", "{text}\nName the second day.",
    ), _weekday, train=2200, validation=130),
    Instruction("units", "units", (
        "{text}\nHow many {unit} is that?", "{text}\nGive it in {unit}.",
        "Convert to {unit}.\n{text}", "Say this in {unit}:\n{text}",
    ), _units, train=2800),
    Instruction("clock", "units", (
        "Write the time in digits.\n{text}", "{text}\nWhat does the clock show?",
        "Give the time as numbers.\n{text}", "{text}\nAt what time?",
    ), _clock, train=2800),
    Instruction("add_story", "arithmetic", (
        "{text}\nHow many now?", "{text}\nWhat is the total?",
        "Solve this.\n{text}", "Find the sum.\n{text}",
    ), _add, train=4000),
    Instruction("take_story", "arithmetic", (
        "{text}\nHow many are left?", "{text}\nWhat remains?",
        "Solve this.\n{text}", "Find the rest.\n{text}",
    ), _take, train=4000),
)  # fmt: skip
