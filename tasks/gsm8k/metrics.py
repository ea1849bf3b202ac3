"""The final answer of a worked solution, compared as a number."""

import re
from collections.abc import Callable, Sequence
from decimal import Decimal

from ift_jax.metrics import Target

_NUMBER = r"-?\$?(?:\d[\d,]*(?:\.\d+)?|\.\d+)"
_ANY = re.compile(_NUMBER)
_MARKED = re.compile(rf"####\s*({_NUMBER})")


def final_answer(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
    """Shares of predictions whose final number is the target's.

    `final_answer` asks for the release's own form, the number after `####` (the first such: a
    model that does not stop may go on with another problem); `final_answer_flexible` takes the
    last number of the text. Numbers are equal as numbers: 1,000 is 1000.0 is $1000.
    """
    pairs = list(zip(targets, predictions, strict=True))
    if not pairs:
        raise ValueError("no examples")

    def share(read: Callable[[str], Decimal | None]) -> float:
        right = 0
        for target, prediction in pairs:
            accepted = [target] if isinstance(target, str) else target
            marked = [marked_number(text) for text in accepted]
            wanted = marked if None not in marked else [last_number(text) for text in accepted]
            found = read(prediction)
            right += found is not None and found in wanted
        return right / len(pairs)

    return {"final_answer": share(marked_number), "final_answer_flexible": share(last_number)}


def marked_number(text: str) -> Decimal | None:
    """Returns the number after the first `####`, if there is one."""
    match = _MARKED.search(text)
    return _decimal(match.group(1)) if match else None


def last_number(text: str) -> Decimal | None:
    """Returns the last number of the text, if there is one."""
    found = _ANY.findall(text)
    return _decimal(found[-1]) if found else None


def _decimal(text: str) -> Decimal:
    return Decimal(text.replace(",", "").replace("$", ""))
