"""A conversation's cache: each turn reads only what the turns before it have not read already."""

import collections.abc

import jax
import numpy as np

from ift_jax.config.schema import DecoderConfig
from ift_jax.decoding.block_loops import TokenLoop
from ift_jax.decoding.cache import (
    Cache,
    empty_cache,
    grow,
    linear_states,
    with_linear_states,
)
from ift_jax.decoding.decode_batch import continue_text
from ift_jax.decoding.generate import Generator
from ift_jax.decoding.request_batch import RequestBatch, bucket
from ift_jax.decoding.requests import Output, Request
from ift_jax.models.attention.kv import LinearState

_empty_cache = jax.jit(empty_cache, static_argnums=(0, 1))
_grow = jax.jit(grow, static_argnums=1)
_linear_states = jax.jit(linear_states)
_with_linear_states = jax.jit(with_linear_states, donate_argnums=0)


class GrowingText:
    """Answers prompts of which each begins as the one before it, with its answer, did.

    The key-value cache is kept between prompts. What a prompt has in common with the tokens in it
    is not read again; a prompt that begins otherwise is read as a whole. An encoder, and a decoder
    that reads its prompt in both directions, must read all of it each time. With LongRoPE, so must
    the first request that reaches beyond `rope_original_length`, or no longer does: the keys that
    are kept have other frequencies (`Request.text_length`). States of linear
    attention cannot forget a token, so they are also kept as they were before the answer: the next
    prompt goes on from there, if it does not go on from the answer's last token.

    Attributes:
        n_read: Tokens of the last prompt that were read.
    """

    def __init__(self, generator: Generator):
        self._generator = generator
        self.n_read = 0
        self.reset()

    def reset(self) -> None:
        """Forget what was read."""
        self._cache: Cache | None = None
        self._ids: list[int] = []  # The tokens in the cache; token n is in slot n.
        self._states: list[LinearState] = []  # Those after the last prompt.
        self._n_prompt = 0  # The tokens of the last prompt.
        self._is_long = False  # Whether the keys have LongRoPE's frequencies for long texts.

    def stream(self, request: Request, *, block: int = 4) -> collections.abc.Generator[Output]:
        """Yield the answer so far: after the first token, then after every block.

        Args:
            request: The prompt. Several answers, beams and log-probabilities of the prompt are for
                `Generator.complete`.
            block: Tokens between two looks.

        Raises:
            UserError: As for `check_request`.
        """
        generator = self._generator
        options = request.options
        asks_more = options.rows > 1 or options.prompt_logprobs is not None
        reads_once = isinstance(generator.model.config, DecoderConfig)
        if asks_more or not reads_once or generator.bidirectional_prompt:
            self.n_read = len(request.prompt)
            for [output] in generator.stream([request], block=block):
                yield output
            return

        generator.check(request)
        prompt = list(request.prompt)
        batch = RequestBatch([request], generator.stops)
        loop = self._begin(batch, prompt)
        n_made = 0
        try:
            while not batch.is_done:
                n_made = min(n_made + (block if n_made else 1), options.max_new_tokens)
                with generator.on_mesh():
                    loop.advance(batch, n_made)
                [output] = batch.outputs()
                yield output
        finally:
            self._cache = loop.cache
            # The last token was not fed back.
            self._ids = [*prompt, *loop.tokens()[:-1]] if loop.cache else []

    def _begin(self, batch: RequestBatch, prompt: list[int]) -> TokenLoop:
        """Read what is new of a prompt."""
        generator = self._generator
        model = generator.model
        assert isinstance(model.config, DecoderConfig)
        is_long = model.config.is_long_text(batch.requests[0].text_length)
        if is_long != self._is_long:
            self.reset()
            self._is_long = is_long
        # At least one token is read, to predict the next one from.
        n_kept = min(_common_length(self._ids, prompt), len(prompt) - 1)
        n_cached = len(self._ids)
        cache, self._cache = self._cache, None  # It is gone if a call is interrupted,
        self._ids = []  # and with it all that was read.
        if self._states and n_kept < n_cached:
            if cache is not None and n_kept >= self._n_prompt:
                cache, n_kept = _with_linear_states(cache, self._states), self._n_prompt
            else:
                cache, n_kept = None, 0
        rest = prompt[n_kept:]
        self.n_read = len(rest)
        rest_1xL = np.full((1, bucket(len(rest))), generator.pad_id, np.int32)
        rest_1xL[0, : len(rest)] = rest
        n_slots = bucket(max(n_kept + rest_1xL.shape[1], len(prompt) + batch.max_new_tokens))
        with generator.on_mesh():
            if cache is None:
                cache = _empty_cache(model, n_slots)
            elif n_slots > cache.slots.positions_BxL.shape[1]:
                cache = _grow(cache, n_slots)
            n_slots = cache.slots.positions_BxL.shape[1]
            layout = batch.layout(generator.pad_id, 0, False)._replace(n_slots=n_slots)
            program, settings = batch.settings(1, model.config.vocab_size)
            begun = continue_text(
                model,
                layout,
                generator.params,
                cache,
                batch.prompts(1, generator.pad_id, n_slots),
                np.int32(n_kept),
                rest_1xL,
            )
            self._states, self._n_prompt = _linear_states(begun[0]), len(prompt)
            return TokenLoop(model, program, generator.params, begun, settings)


def _common_length(a: list[int], b: list[int]) -> int:
    """How many tokens two texts have in common at their beginning."""
    shorter = min(len(a), len(b))
    return next((i for i in range(shorter) if a[i] != b[i]), shorter)
