"""Log-probabilities in the two shapes of OpenAI's API."""

import math
from collections.abc import Sequence
from typing import Any

from ift_jax.decoding import TokenLogprob
from ift_jax.serving.api_error import ApiError
from ift_jax.serving.served_model import ServedModel

_LEAST = -9999.0  # OpenAI's number for what cannot be: JSON has no infinity.


def completion_logprobs(
    model: ServedModel,
    ids: Sequence[int],
    places: Sequence[TokenLogprob | None],
    offset: int,
) -> dict[str, list[Any]]:
    """The log-probabilities of some tokens, as `/v1/completions` gives them.

    Args:
        model: The model.
        ids: The tokens.
        places: Their log-probabilities; None for the first of a prompt, which nothing predicts.
        offset: Where the text of the first one begins.

    Returns:
        "tokens", "token_logprobs", "top_logprobs" (by their text; where two have the same text, the
        likelier; the token itself is among them), and "text_offset".
    """
    tokens, chosen, tops, offsets = [], [], [], []
    for token, place in zip(ids, places, strict=True):
        text = model.token_text(token)
        tokens.append(text)
        offsets.append(offset)
        offset += len(text)
        chosen.append(None if place is None else _finite(place.logprob))
        tops.append(None if place is None else _top_by_text(model, place))
    return {
        "text_offset": offsets,
        "token_logprobs": chosen,
        "tokens": tokens,
        "top_logprobs": tops,
    }


def _top_by_text(model: ServedModel, place: TokenLogprob) -> dict[str, float]:
    top: dict[str, float] = {}
    for token, logprob in (*place.top, (place.id, place.logprob)):
        top.setdefault(model.token_text(token), _finite(logprob))
    return top


def chat_logprobs(model: ServedModel, places: Sequence[TokenLogprob]) -> dict[str, Any]:
    """The log-probabilities of some tokens, as `/v1/chat/completions` gives them."""

    def of_token(token: int, logprob: float) -> dict[str, Any]:
        text = model.token_text(token)
        # A part of a character has no text, and its bytes are not known.
        whole = "\ufffd" not in text
        return {
            "token": text,
            "logprob": _finite(logprob),
            "bytes": list(text.encode()) if whole else None,
        }

    content = [
        {
            **of_token(place.id, place.logprob),
            "top_logprobs": [of_token(token, logprob) for token, logprob in place.top],
        }
        for place in places
    ]
    return {"content": content, "refusal": None}


def _finite(logprob: float) -> float:
    if math.isnan(logprob):
        raise ApiError(500, "the model's log-probabilities are not numbers: its weights are broken")
    return max(logprob, _LEAST)
