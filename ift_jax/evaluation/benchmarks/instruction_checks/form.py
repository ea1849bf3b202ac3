"""Checks of a response's layout: markup, sections, how it begins and ends."""

import json
import re

OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_FENCES = ("```json", "```Json", "```JSON", "```")
_POSTSCRIPTS = {"P.P.S": r"\s*p\.\s?p\.\s?s.*$", "P.S.": r"\s*p\.\s?s\..*$"}


def number_placeholders(response: str, *, num_placeholders: int) -> bool:
    """At least so many placeholders in square brackets, such as `[address]`."""
    return len(re.findall(r"\[.*?\]", response)) >= num_placeholders


def postscript(response: str, *, postscript_marker: str) -> bool:
    """A postscript begins with the marker, in any case."""
    marker = postscript_marker.strip()
    pattern = _POSTSCRIPTS.get(marker, rf"\s*{marker.lower()}.*$")
    return re.search(pattern, response.lower(), re.MULTILINE) is not None


def number_bullet_lists(response: str, *, num_bullets: int) -> bool:
    """Exactly so many lines are bullet points: they begin with `-`, or with a single `*`."""
    stars = re.findall(r"^\s*\*[^\*].*$", response, re.MULTILINE)
    dashes = re.findall(r"^\s*-.*$", response, re.MULTILINE)
    return len(stars) + len(dashes) == num_bullets


def constrained_response(response: str) -> bool:
    """The response has one of the three allowed answers."""
    return any(option in response for option in OPTIONS)


def number_highlighted_sections(response: str, *, num_highlights: int) -> bool:
    """At least so many passages are highlighted, `*so*` or `**so**`.

    As in the release, `**so**` counts once by the second pattern: the first one finds only the
    empty passages between its asterisks.
    """
    single = [found.strip("*") for found in re.findall(r"\*[^\n\*]*\*", response)]
    double = [found[2:-2] for found in re.findall(r"\*\*[^\n\*]*\*\*", response)]
    return sum(bool(text.strip()) for text in (*single, *double)) >= num_highlights


def multiple_sections(response: str, *, section_spliter: str, num_sections: int) -> bool:
    """At least so many sections begin with a word such as `Section` and a number."""
    heads = re.findall(rf"\s?{section_spliter.strip()}\s?\d+\s?", response)
    return len(heads) >= num_sections


def json_format(response: str) -> bool:
    """The whole response is JSON, in a fence of markdown or not."""
    text = response.strip()
    for fence in _FENCES:
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())  # noqa: TID251 - a verdict, not a file.
    except (ValueError, RecursionError):
        return False
    return True


def title(response: str) -> bool:
    """A title stands in double angle brackets."""
    found = re.findall(r"<<[^\n]+>>", response)
    return any(text.lstrip("<").rstrip(">").strip() for text in found)


def two_responses(response: str) -> bool:
    """Six asterisks separate two different responses."""
    parts = [part.strip() for part in response.split("******")]
    if not all(parts[1:-1]):
        return False
    filled = [part for part in parts if part]
    return len(filled) == 2 and filled[0] != filled[1]


def repeat_prompt(response: str, *, prompt_to_repeat: str) -> bool:
    """The response begins with the request, word for word, in any case."""
    return response.strip().lower().startswith(prompt_to_repeat.strip().lower())


def end_checker(response: str, *, end_phrase: str) -> bool:
    """The response ends with a phrase, in any case; a quotation mark may follow it."""
    return response.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def quotation(response: str) -> bool:
    """Double quotation marks enclose the response."""
    text = response.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def no_comma(response: str) -> bool:
    """There is no comma."""
    return "," not in response
