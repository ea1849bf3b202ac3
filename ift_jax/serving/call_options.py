"""How an answer is to be generated: the fields that both endpoints share."""

import dataclasses
from typing import NamedTuple

from ift_jax.decoding import Options, Request, Sampling, Stops
from ift_jax.errors import UserError
from ift_jax.serving.api_error import ApiError, invalid
from ift_jax.serving.fields import Fields
from ift_jax.serving.served_model import ServedModel

MAX_TOP = 20  # Likeliest tokens that may be asked for at each place.
_MAX_STOPS = 64
_LARGEST = 1 << 62
_ONE_CHOICE = "tokens are chosen by temperature, top_p, top_k, min_p, and repetition_penalty"


class Streaming(NamedTuple):
    """Whether the answer is streamed, and whether its last event tells the usage."""

    wanted: bool
    usage: bool


@dataclasses.dataclass(frozen=True)
class CallOptions:
    """What the fields say.

    Attributes:
        n: Answers to each prompt.
        max_tokens: Most new tokens, or None.
        streaming: See there.
        options: The options of a request but for its length.
        seeded: Whether the request has a seed of its own.
    """

    n: int
    max_tokens: int | None
    streaming: Streaming
    options: Options
    seeded: bool

    def request(
        self, model: ServedModel, prompt: list[int], max_new_tokens: int, of: str
    ) -> Request:
        """The request for one prompt.

        Raises:
            ApiError: The model cannot answer it.
        """
        try:
            options = dataclasses.replace(self.options, max_new_tokens=max_new_tokens)
            # What is drawn for a request with a seed must not depend on the requests before it.
            index = 0 if self.seeded else next(model.numbers) % (1 << 31)
            request = Request(prompt, options, index)
            model.generator.check(request)
        except UserError as error:
            raise ApiError(400, str(error), param=of) from None
        return request

    def stops(self, model: ServedModel) -> Stops:
        """What ends the answers."""
        stops = model.generator.stops
        return stops.with_more(self.options.stop_ids, self.options.stop_strings)


def read_options(
    fields: Fields,
    model: ServedModel,
    *,
    max_tokens: tuple[str, ...],
    least_tokens: int,
    logprobs: int | None,
    prompt_logprobs: int | None = None,
) -> CallOptions:
    """Read the fields that both endpoints share.

    Args:
        fields: The body.
        model: The model.
        max_tokens: The names of the field that limits the answer.
        least_tokens: The least that it may say.
        logprobs: As in `Options`.
        prompt_logprobs: As in `Options`.

    Raises:
        ApiError: A field is wrong, or asks for what there is not.
    """
    model.check_name(fields.take("model"))
    _refuse_unsupported(fields)
    limits = {name: fields.whole(name, least_tokens, _LARGEST) for name in max_tokens}
    given = {value for value in limits.values() if value is not None}
    if len(given) > 1:
        raise invalid(max_tokens[0], f"and {max_tokens[1]} differ; expected one of them")
    seed = fields.whole("seed", -(1 << 63), (1 << 63) - 1)
    n = fields.whole("n", 1, model.max_answers, 1)
    assert n is not None
    sampling = _sampling(fields)
    stop_ids, stop_strings = _stops(fields, model)
    options = Options(
        sampling=sampling,
        seed=model.seed if seed is None else seed,
        # Greedy answers to a prompt are all the same, and generated once.
        n=n if sampling.temperature > 0 else 1,
        stop_ids=stop_ids,
        stop_strings=stop_strings,
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
    )
    streaming = _streaming(fields)
    return CallOptions(n, next(iter(given), None), streaming, options, seed is not None)


def _sampling(fields: Fields) -> Sampling:
    values = {
        "temperature": fields.number("temperature", 1.0),
        "top_k": fields.whole("top_k", -1, _LARGEST, 0),
        "top_p": fields.number("top_p", 1.0),
        "min_p": fields.number("min_p", 0.0),
        "repetition_penalty": fields.number("repetition_penalty", 1.0),
    }
    values["top_k"] = max(values["top_k"] or 0, 0)  # vLLM's -1 is "all".
    defaults = {"temperature": 1.0}
    for name, value in values.items():
        try:  # One by one, to name the field that is wrong.
            Sampling(**{**defaults, name: value})  # type: ignore[arg-type]
        except UserError:
            bounds = _BOUNDS[name]
            raise invalid(name, f"expected {bounds}; found {value}") from None
    return Sampling(**values)  # type: ignore[arg-type]


_BOUNDS = {
    "temperature": "0 or more",
    "top_k": "0 or more",
    "top_p": "more than 0, and at most 1",
    "min_p": "0 to 1",
    "repetition_penalty": "more than 0",
}


def _stops(fields: Fields, model: ServedModel) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Stop ids and stop strings: a control token is not in the text, so its id is a stop."""
    texts = fields.texts("stop", _MAX_STOPS)
    if "" in texts:
        raise invalid("stop", "expected texts that are not empty")
    special = model.tokenizer.special_tokens
    ids = tuple(special[text] for text in texts if text in special)
    return ids, tuple(text for text in texts if text not in special)


def _streaming(fields: Fields) -> Streaming:
    wanted = fields.flag("stream")
    options = fields.take("stream_options")
    if options is None:
        return Streaming(wanted, False)
    if not isinstance(options, dict):
        raise invalid("stream_options", "expected an object")
    if not wanted:
        raise invalid("stream_options", "expected stream to be true")
    inner = Fields(options)
    usage = inner.flag("include_usage")
    inner.flag("include_obfuscation")
    inner.finish()
    return Streaming(wanted, usage)


def _refuse_unsupported(fields: Fields) -> None:
    """Refuse what would change the answer, unless it has the value that changes nothing."""
    fields.only("frequency_penalty", [0], _ONE_CHOICE)
    fields.only("presence_penalty", [0], _ONE_CHOICE)
    fields.only("logit_bias", [{}], _ONE_CHOICE)
