"""Sentences and words as NLTK sees them, without its downloaded data.

The release of IFEval counts sentences with Punkt's trained English model, which NLTK downloads.
Where that data is on this machine it is used, so the counts are the release's. Otherwise Punkt's
own rules run with the abbreviations and sentence starters below instead of the trained ones: text
without abbreviations is split in the same places.
"""

import functools
import importlib
import re
from typing import Any

_WORD = re.compile(r"\w+")
# In lower case and without the last period, as Punkt keeps them. "e.g.", "i.e.", "etc.", and "P.S."
# are no abbreviations for the trained model, which ends a sentence at them; so does this one.
_ABBREVIATIONS = (
    "a.m adm aug ave bros co col corp ct d.c dec dr feb fla ft gen ga inc jan jr lt ltd maj messrs "
    "mr mrs ms n.j n.y nov oct p.m ph.d prof rep reps sen sep sept sr st u.k u.n u.s u.s.a va vs "
    "wash"
).split()
# After an abbreviation, these begin a sentence when they are capitalized.
_STARTERS = (
    "the this that these those there it he she we they i you if in but and however when while "
    "what why how who where as at for to so our my his her their its after before since "
    "although yet then once"
).split()


def count_words(text: str) -> int:
    """Return the number of runs of letters, digits, and underscores."""
    return len(_WORD.findall(text))


def count_sentences(text: str) -> int:
    """Return the number of sentences."""
    return len(sentences(text))


def sentences(text: str) -> list[str]:
    """Return the sentences of a text."""
    return list(_sentence_tokenizer().tokenize(text))


def word_tokens(text: str) -> list[str]:
    """Return words and punctuation as `nltk.word_tokenize` separates them."""
    tokenizer = importlib.import_module("nltk.tokenize").NLTKWordTokenizer()
    return [token for sentence in sentences(text) for token in tokenizer.tokenize(sentence)]


@functools.cache
def _sentence_tokenizer() -> Any:
    try:
        return _punkt().PunktTokenizer("english")
    except LookupError:  # The trained data is not on this machine, and nothing is downloaded.
        return untrained_tokenizer()


def uses_trained_data() -> bool:
    """Whether sentences are split with NLTK's trained data."""
    return isinstance(_sentence_tokenizer(), _punkt().PunktTokenizer)


def untrained_tokenizer() -> Any:
    """Return Punkt with the abbreviations and sentence starters of this file."""
    parameters = _punkt().PunktParameters()
    parameters.abbrev_types.update(_ABBREVIATIONS)
    parameters.sent_starters.update(_STARTERS)
    return _punkt().PunktSentenceTokenizer(parameters)


def _punkt() -> Any:
    """Return NLTK's module, which is part of the extra ifeval."""
    return importlib.import_module("nltk.tokenize.punkt")
