"""The table of instructions, and the strict and the loose rule of following them."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ift_jax.evaluation.benchmarks.instruction_checks import form, language, words
from ift_jax.io.typed_fields import TEXT, TEXTS, shown, whole

# By the release's id. The parameters after the response are the fields of a prompt's "kwargs".
CHECKS: Mapping[str, Callable[..., bool]] = {
    "keywords:existence": words.existence,
    "keywords:frequency": words.keyword_frequency,
    "keywords:forbidden_words": words.forbidden_words,
    "keywords:letter_frequency": words.letter_frequency,
    "language:response_language": language.response_language,
    "length_constraints:number_sentences": words.number_sentences,
    "length_constraints:number_paragraphs": words.number_paragraphs,
    "length_constraints:number_words": words.number_words,
    "length_constraints:nth_paragraph_first_word": words.nth_paragraph_first_word,
    "detectable_content:number_placeholders": form.number_placeholders,
    "detectable_content:postscript": form.postscript,
    "detectable_format:number_bullet_lists": form.number_bullet_lists,
    "detectable_format:constrained_response": form.constrained_response,
    "detectable_format:number_highlighted_sections": form.number_highlighted_sections,
    "detectable_format:multiple_sections": form.multiple_sections,
    "detectable_format:json_format": form.json_format,
    "detectable_format:title": form.title,
    "combination:two_responses": form.two_responses,
    "combination:repeat_prompt": form.repeat_prompt,
    "startend:end_checker": form.end_checker,
    "startend:quotation": form.quotation,
    "change_case:capital_word_frequency": words.capital_word_frequency,
    "change_case:english_capital": language.english_capital,
    "change_case:english_lowercase": language.english_lowercase,
    "punctuation:no_comma": form.no_comma,
}
_PATTERNS = ("keyword", "keywords", "forbidden_words", "section_spliter", "postscript_marker")
# What an argument must be, by the annotation of a check's parameter.
_KINDS = {int: whole(), str: TEXT, Sequence[str]: TEXTS}


def arguments_of(given: Any, n_instructions: int) -> list[dict[str, Any]] | None:
    """Return the arguments of each instruction; None if they are no list of as many objects.

    A table has a column for every argument of any instruction, and null where it has none.
    """
    if not isinstance(given, list) or len(given) != n_instructions:
        return None
    if not all(one is None or isinstance(one, Mapping) for one in given):
        return None
    return [
        {name: value for name, value in (one or {}).items() if value is not None} for one in given
    ]


def instruction_error(instruction: str, kwargs: Mapping[str, Any]) -> str:
    """Return what is wrong with an instruction and its arguments; "" if nothing is."""
    if instruction not in CHECKS:
        return f"no instruction {instruction!r}; expected one of the release's {len(CHECKS)}"
    _, *parameters = inspect.signature(CHECKS[instruction]).parameters.values()
    kinds = {parameter.name: _KINDS[parameter.annotation] for parameter in parameters}
    if set(kwargs) != set(kinds):
        found = ", ".join(sorted(kwargs)) or "none"
        wanted = ", ".join(sorted(kinds)) or "none"
        return f"{instruction}: expected the arguments {wanted}; found {found}"
    for name, value in kwargs.items():
        if not kinds[name].accepts(value):
            return f"{instruction}: {name}: expected {kinds[name].expected}; found {shown(value)}"
        if name.endswith("relation") and value not in words.RELATIONS:
            return f"{instruction}: {name}: expected one of {words.RELATIONS}; found {value!r}"
        if name in _PATTERNS:
            for pattern in [value] if isinstance(value, str) else value:
                try:
                    re.compile(pattern)
                except re.error as error:
                    return f"{instruction}: {name}: {pattern!r} is no pattern ({error})"
    return ""


def followed(
    response: str, instructions: Sequence[str], kwargs: Sequence[Mapping[str, Any]]
) -> list[bool]:
    """Return whether a response follows each instruction; an empty one follows none (strict)."""
    return [
        bool(response.strip()) and CHECKS[instruction](response, **arguments)
        for instruction, arguments in zip(instructions, kwargs, strict=True)
    ]


def followed_loosely(
    response: str, instructions: Sequence[str], kwargs: Sequence[Mapping[str, Any]]
) -> list[bool]:
    """Return whether the response or a variant of it follows each instruction (loose).

    The variants leave out the first line, the last line, or both, such as "Sure, here it is:", and
    markdown's asterisks.
    """
    variants = [followed(text, instructions, kwargs) for text in loose_variants(response)]
    return [any(verdicts) for verdicts in zip(*variants, strict=True)]


def loose_variants(response: str) -> list[str]:
    """Return the eight texts of the loose rule, without repetition."""
    lines = response.split("\n")
    parts = [lines[1:], lines[:-1], lines[1:-1]]
    texts = [response, *("\n".join(part).strip() for part in parts)]
    return list(dict.fromkeys([*texts, *(text.replace("*", "") for text in texts)]))
