"""What is asked of a model and what it answers: the one interface of everything that decodes.

`Generator.complete` takes requests and returns outputs. The commands, the evaluation, an HTTP
server and an adapter of lm-evaluation-harness all speak through these types.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

from ift_jax.config.schema import DecoderConfig, EvaluationConfig, ModelConfig
from ift_jax.decoding.sampling import Sampling
from ift_jax.errors import UserError

BEAM_RULES = ("transformers", "t5x")
MAX_NEW_TOKENS = 2**30  # A cache has up to half as many slots again, counted in int32.
MAX_LOGPROBS = 1024  # Top tokens that may be asked for at each position.


@dataclasses.dataclass(frozen=True)
class BeamSearch:
    """How beams are searched; hashable, so a static argument of jit."""

    num_beams: int = 4
    # The power of the length penalty: above 0 prefers longer answers. What is raised to it depends
    # on `rules`.
    length_penalty: float = 1.0
    rules: str = "transformers"  # or "t5x"; `ift_jax.decoding.beam_search` has both.
    early_stopping: bool = False  # By the rules of transformers: end with `num_beams` answers.

    @classmethod
    def of(cls, evaluation: EvaluationConfig) -> "BeamSearch | None":
        """The search that an evaluation asks for; None if it is greedy."""
        if evaluation.num_beams == 1:
            return None
        return cls(evaluation.num_beams, evaluation.length_penalty, evaluation.beam_rules)

    def __post_init__(self) -> None:
        if self.num_beams < 2:
            raise UserError(f"num_beams: expected 2 or more; got {self.num_beams}")
        if not math.isfinite(self.length_penalty):
            raise UserError(f"length_penalty: expected a number; got {self.length_penalty}")
        if self.rules not in BEAM_RULES:
            expected = " or ".join(map(repr, BEAM_RULES))
            raise UserError(f"beam_rules: expected {expected}; got {self.rules!r}")
        if self.early_stopping and self.rules != "transformers":
            raise UserError("early_stopping: belongs to the beam rules of transformers")


@dataclasses.dataclass(frozen=True)
class Options:
    """How a prompt is to be continued."""

    max_new_tokens: int = 128  # 0 is allowed if `prompt_logprobs` is asked for.
    sampling: Sampling = Sampling()
    seed: int = 0
    n: int = 1  # Answers to the prompt; more than one need sampling or beams.
    beams: BeamSearch | None = None  # Instead of greedy decoding.
    stop_ids: tuple[int, ...] = ()  # Tokens that end an answer besides the generator's own.
    stop_strings: tuple[str, ...] = ()  # Texts that end an answer besides the generator's own.
    # The log-probability of each new token, and this many likeliest tokens at its place (0: only
    # its own); None: no log-probabilities. They are those of the model, before temperature,
    # penalties and filters, as in OpenAI's API.
    logprobs: int | None = None
    prompt_logprobs: int | None = None  # The same for the prompt's tokens (OpenAI's `echo`).

    def __post_init__(self) -> None:
        least = 0 if self.prompt_logprobs is not None else 1
        if not least <= self.max_new_tokens <= MAX_NEW_TOKENS:
            raise UserError(
                f"max_new_tokens: expected {least} to {MAX_NEW_TOKENS:,}; got {self.max_new_tokens}"
            )
        if self.n < 1:
            raise UserError(f"n: expected 1 or more; got {self.n}")
        self._check_choice()
        for name in ("logprobs", "prompt_logprobs"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= MAX_LOGPROBS:
                raise UserError(f"{name}: expected 0 to {MAX_LOGPROBS}; got {value}")
        if "" in self.stop_strings:
            raise UserError("stop_strings: expected texts that are not empty")

    def _check_choice(self) -> None:
        """Check that greedy decoding, sampling, or beam search was asked for, and not two."""
        if self.beams is None:
            if self.n > 1 and self.sampling.temperature == 0:
                raise UserError(
                    f"n: {self.n} greedy answers would be the same; expected a temperature above "
                    "0, or beams"
                )
            return
        if self.sampling != Sampling():
            raise UserError(
                "num_beams: beam search neither samples nor penalizes repetition; expected no "
                "temperature, top_k, top_p, min_p or repetition_penalty"
            )
        if self.n > self.beams.num_beams:
            raise UserError(
                f"n: {self.beams.num_beams} beams give as many answers; expected at most that, "
                f"got {self.n}"
            )
        if self.logprobs:
            raise UserError(
                "logprobs: beam search keeps no likeliest tokens; expected 0, for those of the "
                "answer alone"
            )

    @property
    def rows(self) -> int:
        """Rows of a batch that the prompt takes."""
        return self.n if self.beams is None else self.beams.num_beams


@dataclasses.dataclass(frozen=True)
class Request:
    """A prompt, and how it is to be continued.

    What is drawn depends on (seed, index, number of the sample, number of the token) alone, never
    on the other requests of a batch.
    """

    prompt: Sequence[int]  # Token ids; for an encoder-decoder the encoder's input.
    options: Options = Options()
    index: int = 0  # Tells apart requests with the same seed, such as the lines of a file.

    @property
    def text_length(self) -> int:
        """The most tokens that a decoder reads: the prompt, and all new ones but the last.

        LongRoPE decides by it, so that a request's answer depends on the request alone, and no
        key in the cache is of other frequencies than the rest.
        """
        return len(self.prompt) + max(self.options.max_new_tokens - 1, 0)


def check_request(
    request: Request, model: ModelConfig, *, bidirectional_prompt: bool = False
) -> None:
    """Check that a model can answer a request.

    Args:
        request: The request.
        model: The model's config.
        bidirectional_prompt: Whether the model's prompt tokens attend to each other both ways.

    Raises:
        UserError: The prompt is empty, holds ids that the model does not have, or does not fit
            into the model with its answer, or log-probabilities are asked for that the model does
            not have.
    """
    prompt, options = request.prompt, request.options
    decoder = isinstance(model, DecoderConfig)
    if decoder and not prompt:
        raise UserError("a decoder needs at least one token of prompt")
    if prompt and not 0 <= min(prompt) <= max(prompt) < model.vocab_size:
        raise UserError(
            f"prompt: expected token ids from 0 to {model.vocab_size - 1}; found "
            f"{min(prompt) if min(prompt) < 0 else max(prompt)}"
        )
    n_tokens = len(prompt) + options.max_new_tokens
    positions = model.max_length if isinstance(model, DecoderConfig) else 0
    if positions and n_tokens > positions:
        raise UserError(
            f"{len(prompt)} tokens of prompt and max_new_tokens {options.max_new_tokens}: "
            f"expected at most the model's max_length {positions} together"
        )
    if max(options.logprobs or 0, options.prompt_logprobs or 0) > model.vocab_size:
        raise UserError(f"logprobs: expected at most the vocabulary's {model.vocab_size}")
    if options.prompt_logprobs is None:
        return
    if not decoder:
        raise UserError("prompt_logprobs: an encoder-decoder does not predict its prompt")
    if bidirectional_prompt:
        raise UserError(
            "prompt_logprobs: the model reads its prompt in both directions, and predicts none of "
            "it"
        )


class TokenLogprob(NamedTuple):
    """A token with its natural log-probability, and the likeliest tokens at its place."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()  # Ids with their log-probabilities, likeliest first.


class Completion(NamedTuple):
    """One answer."""

    # The new tokens, including the stop token, or the one that completes a stop string.
    ids: list[int]
    # Before what ended it, surrounding white space included; "" if the generator cannot decode.
    text: str
    finish_reason: str  # "stop" (a token or string) or "length"; "" while it is generated.
    logprobs: list[TokenLogprob] | None = None  # One for each id.
    # By beam search: the sum of the log-probabilities, divided by the length penalty.
    score: float | None = None


class Output(NamedTuple):
    """The answers to a request."""

    completions: list[Completion]  # `Options.n` of them.
    # One for each token of the prompt; None for the first, which nothing precedes.
    prompt_logprobs: list[TokenLogprob | None] | None = None
