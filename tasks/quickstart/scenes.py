"""Quickstart instructions about what a sentence says: the same questions about different scenes.

A scene has sentence forms with places for words of some kinds (a person, a city, a color); a task
asks for one of them, among three words of the sentence. The clusters of `HELD_OUT` are scenes that
training never sees. They ask for kinds that other scenes ask for, in sentences of their own and
partly in words of their own: what can be learned from many scenes, and not from a few.
"""

from collections.abc import Callable, Mapping, Sequence

from ift_jax.data.randomness import Draws
from tasks.quickstart import words
from tasks.quickstart.instruction import Fields, Instruction
from tasks.quickstart.text import options

HELD_OUT = ("reading", "news", "deliveries")

# Kind -> questions. The last one is asked in held-out scenes alone.
QUESTIONS = {
    "who": ("Who is it?", "Which person is named?", "Find the name.", "Name the person.",
            "Who is this about?"),
    "where": ("Where is it?", "Which city is named?", "Find the place.", "Name the city.",
              "Which town is this about?"),
    "color": ("What color is it?", "Which color is named?", "Find the color.", "Name the color.",
              "Which color is this about?"),
    "animal": ("What animal is it?", "Which animal is named?", "Find the animal.",
               "Name the animal.", "Which animal is this about?"),
    "thing": ("What thing is it?", "Which object is named?", "Find the thing.",
              "Name the object.", "Which object is this about?"),
    "job": ("What work is it?", "Which job is named?", "Find the job.", "Name the profession.",
            "Which job is this about?"),
    "food": ("What food is it?", "Which meal is named?", "Find the food.", "Name the meal.",
             "Which food is this about?"),
    "day": ("What day is it?", "Which day is named?", "Find the day.", "Name the weekday.",
            "Which day is this about?"),
}  # fmt: skip
_WORDS: Mapping[str, Sequence[str]] = {
    "who": words.NAMES,
    "where": words.CITIES,
    "color": words.COLORS,
    "animal": words.ANIMALS,
    "thing": words.THINGS,
    "job": words.JOBS,
    "food": words.FOODS,
    "day": words.DAYS,
}

# Cluster -> (prefix of its tasks, kinds that are asked for, sentence forms).
SCENES: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "travel": ("trip", "who where day", (
        "{who} goes to {where} on {day}.", "On {day}, {who} came to {where}.",
    )),
    "meals": ("meal", "who food day", (
        "{who} ate {food} on {day}.", "On {day} there was {food} for {who}.",
    )),
    "shopping": ("shop", "color thing where", (
        "They sold a {color} {thing} in {where}.", "A {color} {thing} is cheap in {where}.",
    )),
    "work": ("work", "job where day", (
        "The {job} works in {where} on {day}.", "On {day} a {job} is needed in {where}.",
    )),
    "homes": ("home", "color thing who", (
        "The {color} {thing} belongs to {who}.", "{who} has a {color} {thing} at home.",
    )),
    "farms": ("farm", "job color animal", (
        "The {job} has a {color} {animal}.", "A {color} {animal} follows the {job}.",
    )),
    "zoos": ("zoo", "animal where day", (
        "The {animal} left the zoo of {where} on {day}.", "On {day} {where} got a new {animal}.",
    )),
    "kitchens": ("cook", "food color thing", (
        "The {food} is under the {color} {thing}.", "A {color} {thing} stands by the {food}.",
    )),
    "walks": ("walk", "who animal job", (
        "{who} walks the {animal} of the {job}.", "The {job} saw {who} with a {animal}.",
    )),
    "parties": ("party", "job food thing", (
        "The {job} brought {food} and a {thing}.", "There is {food} and a {thing} for the {job}.",
    )),
    "reading": ("read", "who where color", (
        "{who} found a {color} fish in {where}.", "A {color} fish was in {where}, says {who}.",
    )),
    "news": ("news", "job food day", (
        "The {job} warns of {food} on {day}.", "No {food} on {day}, says a {job}.",
    )),
    "deliveries": ("post", "thing animal where", (
        "A {thing} and a {animal} were sent to {where}.",
        "{where} waits for a {animal} and a {thing}.",
    )),
}  # fmt: skip


def _drawn(asked: str, kinds: Sequence[str], forms: Sequence[str]) -> Callable[[Draws], Fields]:
    """Return a draw of a sentence, three of its words as options, and the one asked for."""

    def draw(d: Draws) -> Fields:
        said = {kind: d.choice(_WORDS[kind]) for kind in kinds}
        text = d.choice(forms).format_map(said)
        return {
            "text": text[0].upper() + text[1:],
            "options": options(d, said[asked], tuple(said.values())),
            "answer": said[asked],
        }

    return draw


def _instructions() -> tuple[Instruction, ...]:
    made = []
    for cluster, (prefix, asked, forms) in SCENES.items():
        kinds = asked.split()
        for kind in kinds:
            *trained, unseen = QUESTIONS[kind]
            questions = [*trained, unseen] if cluster in HELD_OUT else trained
            # The question comes first in every other phrasing.
            phrasings = tuple(
                f"{question}\n{{text}}" if place % 2 else f"{{text}}\n{question}"
                for place, question in enumerate(questions)
            )
            draw = _drawn(kind, kinds, forms)
            made.append(
                Instruction(f"{prefix}_{kind}", cluster, phrasings, draw, train=380, validation=40)
            )
    return tuple(made)


SCENE_INSTRUCTIONS = _instructions()
