"""Sentences and words as NLTK sees them, without its downloaded data.

The release of IFEval counts sentences with Punkt's trained English model, which NLTK downloads.
Where that data is on this machine it is used, so the counts are the release's. Otherwise Punkt's
own rules run with the abbreviations and sentence starters below instead of the trained ones: text
without abbreviations is split in the same places.
"""

import functools
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nltk.tokenize.punkt import PunktSentenceTokenizer

_WORD = re.compile(r"\w+")
# Written without the last period, in lower case, as Punkt keeps them.
_ABBREVIATIONS = (
    "adm al apr approx assn aug ave blvd capt cf cmdr co col corp cpl dec dept dr e.g est esq feb "
    "fig fr gen gov hon i.e inc jan jr jul jun lt ltd m.d maj mar messrs mr mrs ms mt no nov oct "
    "p.m a.m p.s ph.d pp prof pvt rep rev sec sen sep sept sgt sr st u.k u.n u.s u.s.a vs etc b.a "
    "b.s m.a m.s d.c"
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
    from nltk.tokenize import NLTKWordTokenizer

    tokenizer = NLTKWordTokenizer()
    return [token for sentence in sentences(text) for token in tokenizer.tokenize(sentence)]


@functools.cache
def _sentence_tokenizer() -> "PunktSentenceTokenizer":
    from nltk.tokenize.punkt import PunktTokenizer

    try:
        return PunktTokenizer("english")
    except LookupError:  # The trained data is not on this machine, and nothing is downloaded.
        return untrained_tokenizer()


def uses_trained_data() -> bool:
    """Whether sentences are split with NLTK's trained data."""
    from nltk.tokenize.punkt import PunktTokenizer

    return isinstance(_sentence_tokenizer(), PunktTokenizer)


def untrained_tokenizer() -> "PunktSentenceTokenizer":
    """Return Punkt with the abbreviations and sentence starters of this file."""
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

    parameters = PunktParameters()
    parameters.abbrev_types.update(_ABBREVIATIONS)
    parameters.sent_starters.update(_STARTERS)
    return PunktSentenceTokenizer(parameters)
