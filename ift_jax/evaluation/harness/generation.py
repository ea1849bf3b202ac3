"""How a task's `generation_kwargs` become `Options`."""

from collections.abc import Mapping
from typing import Any

from lm_eval.models.utils import normalize_gen_kwargs

from ift_jax.decoding import BeamSearch, Options, Sampling
from ift_jax.errors import UserError, offered
from ift_jax.text.tokenizers.base import Tokenizer

_SAMPLED = ("top_k", "top_p", "min_p")  # They say nothing of a greedy answer.
_KNOWN = (
    "until",
    "max_gen_toks",
    "do_sample",
    "temperature",
    *_SAMPLED,
    "repetition_penalty",
    "num_beams",
    "length_penalty",
    "early_stopping",
    "seed",
)


def generation_options(
    gen_kwargs: Mapping[str, Any], tokenizer: Tokenizer, *, max_gen_toks: int, seed: int
) -> Options:
    """Return how an answer is generated.

    Args:
        gen_kwargs: What the task and `--gen_kwargs` say, in the words of lm-evaluation-harness.
        tokenizer: Tells stop strings that are control tokens from others.
        max_gen_toks: The most tokens of an answer, where they do not say it.
        seed: What answers are sampled with, where they do not say it.

    Raises:
        UserError: A name is none that is known here, or a value is out of its range.
    """
    wanted = dict(normalize_gen_kwargs(dict(gen_kwargs), max_gen_toks))
    for name in wanted:
        if name not in _KNOWN:
            hint = offered(name, _KNOWN)
            raise UserError(f"gen_kwargs: {name!r} is not known to model ift_jax{hint}")
    # A text that a model's vocabulary has as a control token never appears in decoded text.
    until = [text for text in wanted["until"] if text]
    special = tokenizer.special_tokens
    beams = int(wanted.get("num_beams", 1))
    return Options(
        max_new_tokens=wanted["max_gen_toks"],
        sampling=_sampling(wanted),
        seed=int(wanted.get("seed", seed)),
        beams=None if beams == 1 else _beam_search(beams, wanted),
        stop_ids=tuple(special[text] for text in until if text in special),
        stop_strings=tuple(text for text in until if text not in special),
    )


def _sampling(wanted: Mapping[str, Any]) -> Sampling:
    """Return how tokens are chosen; sampling without a temperature has that of 1."""
    fields: dict[str, Any] = {}
    if wanted["do_sample"]:
        fields["temperature"] = float(wanted.get("temperature", 1.0))
        if fields["temperature"] > 0:
            fields |= {name: wanted[name] for name in _SAMPLED if name in wanted}
    if "repetition_penalty" in wanted:
        fields["repetition_penalty"] = float(wanted["repetition_penalty"])
    return Sampling(**fields)


def _beam_search(num_beams: int, wanted: Mapping[str, Any]) -> BeamSearch:
    return BeamSearch(
        num_beams,
        float(wanted.get("length_penalty", 1.0)),
        early_stopping=bool(wanted.get("early_stopping", False)),
    )
