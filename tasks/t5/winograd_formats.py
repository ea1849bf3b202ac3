"""T5's formats of the Winograd schemas (WSC, DPR, WNLI): a pronoun between stars in, a noun out."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ift_jax.data.randomness import Draws
from ift_jax.errors import UserError
from tasks.t5.formats import UNLABELED, Record, Row, label_name, make_record, tagged

_PRONOUNS = {"he", "she", "they", "it", "her", "his", "their", "them", "him"}


def correct_referents(row: Row, split: str) -> Iterable[Row]:
    """Drop the training rows of WSC whose noun is not the referent, because it is the target."""
    is_correct = row["label"] in (1, True, "True")
    return [row] if split != "train" or is_correct else []


def wsc(row: Row, draws: Draws, split: str) -> Record:
    """Format SuperGLUE's WSC: the pronoun between stars. The target is the noun in question.

    Outside of training that noun may be the wrong one; the metric compares whether the answer is
    that noun with the label.

    Raises:
        UserError: The text does not hold the pronoun.
    """
    words = row["text"].split(" ")
    pronoun = row["span2_text"]
    places = [i for i, word in enumerate(words) if _bare(word) == pronoun.lower()]
    if not places:
        raise UserError(f"super_glue/wsc.fixed: the pronoun {pronoun!r} is not in {row['text']!r}")
    # The index of the pronoun is wrong in two rows, so its nearest occurrence is taken.
    index = int(row["span2_index"])
    place = min(places, key=lambda i: abs(i - index))
    words[place] = _starred(words[place])
    referent = row["span1_text"]
    label = label_name(row, ("False", "True"))
    return make_record("wsc: " + " ".join(words), referent, [referent, *tagged(label=label)])


def definite_pronouns(row: Row, draws: Draws, split: str) -> Record:
    """Format definite pronoun resolution, which T5 trains on together with WSC.

    The target is the right candidate.
    """
    pattern = f" ({re.escape(row['pronoun'])})([ .,])"
    sentence = re.sub(pattern, r" *\1*\2", row["sentence"], count=1)
    return make_record(f"wsc: {sentence}", row["candidates"][int(row["label"])])


def wnli(row: Row, draws: Draws, split: str) -> Record:
    """Format WNLI like WSC (for evaluation only): which noun replaced which pronoun?

    Raises:
        UserError: The premise has no pronoun.
    """
    premise = row["sentence1"].split()
    replacement = _find_replacement(premise, row["sentence2"].split())
    if replacement is None:
        raise UserError(f"glue/wnli: no pronoun in {row['sentence1']!r}")
    noun = re.sub(r"('s|')$", "", replacement.noun.rstrip(".,?!"))
    premise[replacement.place] = _starred(premise[replacement.place])
    is_entailed = {"entailment": "True", "not_entailment": "False"}
    label = is_entailed.get(label_name(row, ("not_entailment", "entailment")), UNLABELED)
    return make_record("wsc: " + " ".join(premise), noun, [noun, *tagged(label=label)])


class _Replacement(NamedTuple):
    """The place of a pronoun in a premise, and the noun that stands for it in the hypothesis."""

    place: int
    noun: str


def _find_replacement(premise: Sequence[str], hypothesis: Sequence[str]) -> _Replacement | None:
    """Find the pronoun of the premise for which the hypothesis has a noun.

    The hypothesis is taken apart into the words before the noun, the noun, and the words after it,
    so that as many words as possible also surround a pronoun in the premise. Among equal matches
    the shortest noun wins, then the last pronoun.
    """
    bare_premise = [_bare(word) for word in premise]
    bare_hypothesis = [_bare(word) for word in hypothesis]
    best: _Replacement | None = None
    best_score = (-1, 0, 0)
    for place in (i for i, word in enumerate(bare_premise) if word in _PRONOUNS):
        for start in range(len(hypothesis)):
            before = _shared(bare_premise[:place][::-1], bare_hypothesis[:start][::-1])
            if start and not before:
                continue
            for stop in range(start + 1, len(hypothesis) + 1):
                after = _shared(bare_premise[place + 1 :], bare_hypothesis[stop:])
                if stop < len(hypothesis) and not after:
                    continue
                score = (before + after, start - stop, place)
                if score > best_score:
                    best_score = score
                    best = _Replacement(place, " ".join(hypothesis[start:stop]))
    return best


def _shared(a: Sequence[str], b: Sequence[str]) -> int:
    """Return how many first words two sequences share."""
    count = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        count += 1
    return count


def _bare(word: str) -> str:
    return word.strip(".,?!;:\"'()").lower()


def _starred(word: str) -> str:
    """Put stars around a word, and separate the punctuation that follows it."""
    match = re.fullmatch(r"(\W*)(.*?)(\W*)", word)
    assert match is not None
    before, bare, after = match.groups()
    return f"{before}*{bare}*" + (f" {after}" if after else "")
