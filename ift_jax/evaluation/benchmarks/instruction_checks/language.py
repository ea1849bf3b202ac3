"""The language of a response, by the package langdetect, and checks of its letters' case.

langdetect draws random numbers; here they are seeded, so a response always gets the same verdict.
The release does not seed them, so that short responses may get another one from run to run.
"""

import importlib


def _is_language(response: str, language: str) -> bool:
    """Whether langdetect finds this language; True, as in the release, if it finds none at all."""
    langdetect = importlib.import_module("langdetect")  # The extra ifeval.
    langdetect.DetectorFactory.seed = 0
    try:
        return bool(langdetect.detect(response) == language)
    except langdetect.LangDetectException:
        return True


def response_language(response: str, *, language: str) -> bool:
    """The whole response is in a language, given as its ISO 639-1 code."""
    return _is_language(response, language)


def english_capital(response: str) -> bool:
    """The response is English, and all its letters are capital."""
    return response.isupper() and _is_language(response, "en")


def english_lowercase(response: str) -> bool:
    """The response is English, and none of its letters is capital."""
    return response.islower() and _is_language(response, "en")
