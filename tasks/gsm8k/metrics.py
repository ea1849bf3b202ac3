"""The final answer of a worked solution, compared as a number."""

import re
from collections.abc import Callable, Sequence
from decimal import Decimal

from ift_jax.metrics import Target, reference_metric

_NUMBER = r"-?\$?(?:\d[\d,]*(?:\.\d+)?|\.\d+)"
_ANY_NUMBER = re.compile(_NUMBER)
_MARKED_NUMBER = re.compile(rf"####\s*({_NUMBER})")


@reference_metric
def final_answer(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """Return the fractions of predictions whose final number is that of the target.

    Numbers are compared by value: 1,000 equals 1000.0 and $1000.

    Returns:
        `final_answer` takes the number after `####`, the form of the release. The first one
        counts, because a model that does not stop may continue with another problem.
        `final_answer_flexible` takes the last number of the text.

    Raises:
        ValueError: There are no examples.
    """
    pairs = list(zip(targets, predictions, strict=True))
    if not pairs:
        raise ValueError("no examples")

    def fraction_right(read: Callable[[str], Decimal | None]) -> float:
        right = 0
        for target, prediction in pairs:
            answer = read(prediction)
            right += answer is not None and answer in _accepted_numbers(target)
        return right / len(pairs)

    return {
        "final_answer": fraction_right(marked_number),
        "final_answer_flexible": fraction_right(last_number),
    }


def _accepted_numbers(target: Target) -> list[Decimal | None]:
    """Return the marked numbers of the references, or their last ones if a mark is missing."""
    references = [target] if isinstance(target, str) else target
    marked = [marked_number(text) for text in references]
    if None in marked:
        return [last_number(text) for text in references]
    return marked


def marked_number(text: str) -> Decimal | None:
    """Return the number after the first `####` that has one, if there is any."""
    match = _MARKED_NUMBER.search(text)
    return _decimal(match.group(1)) if match else None


def last_number(text: str) -> Decimal | None:
    """Return the last number of the text, if there is one."""
    found = _ANY_NUMBER.findall(text)
    return _decimal(found[-1]) if found else None


def _decimal(text: str) -> Decimal:
    return Decimal(text.replace(",", "").replace("$", ""))
