"""Decoding a batch on the device: reading the prompts, and the loop that makes tokens.

A batch's state stays on the device between the calls. Each call of `advance_batch` makes as many
tokens as it is told, a block; `ift_jax.decoding.generate` calls it until all rows have ended.
Shape suffixes: N prompts, B rows (B / N samples of each prompt), P prompt positions, S slots, D
model width, V vocabulary, K likeliest tokens, I stop ids.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ift_jax.config.schema import DecoderConfig
from ift_jax.decoding.cache import Cache, append_text, extend, forget_from, prefill, repeat_rows
from ift_jax.decoding.log_probs import LogProbs, log_probs, prompt_log_probs
from ift_jax.decoding.sampling import SamplingProgram, SamplingRows, sample_token
from ift_jax.models.model import Model, Params
from ift_jax.sharding import rules
from ift_jax.sharding.product_library import EIGEN


class Layout(NamedTuple):
    """What the program of a batch's beginning is made for; hashable."""

    # Slots of the cache: a decoder's prompts, or the first input of an encoder-decoder's decoder,
    # and the new tokens.
    n_slots: int
    pad_id: int  # Padding.
    bidirectional_prompt: bool = False  # As for `prefill`.
    n_copies: int = 1  # Rows of each prompt.
    penalizes: bool = False  # Whether a repetition penalty will be asked for.
    n_top: int = -1  # Likeliest tokens kept beside each new token; -1: no log-probabilities.
    n_prompt_top: int = -1  # The same for the tokens of the prompts.


class Prompts(NamedTuple):
    """The prompts of a batch, as arrays of NumPy or JAX."""

    tokens_NxP: Any  # int32, padded on the right.
    lengths_N: Any  # int32.
    seeds_Nx2: Any  # uint32: the key data of each seed.
    index_N: Any  # int32; folded into the key. Rows of -1 only fill the batch up.
    text_lengths_N: Any  # int32: `Request.text_length`.


class RowSettings(NamedTuple):
    """What the loop does in each row, as arrays of NumPy or JAX."""

    sampling: SamplingRows
    stop_ids_BxI: Any  # int32: tokens that end the row; -1 fills up.
    limits_B: Any  # int32: the row's most new tokens.


class DecodeState(NamedTuple):
    """A batch between two blocks, apart from its cache, which is donated to every block."""

    tokens_BxS: jax.Array  # int32: the new tokens. There are at least as many slots.
    counts_B: jax.Array  # int32: how many new tokens count, those up to the row's end.
    running_B: jax.Array  # bool: rows that nothing has ended.
    states_BxD: jax.Array  # The states that predict the newest token; at first, those of prompts.
    n: jax.Array  # int32 scalar: how many tokens were made.
    keys_B: jax.Array  # The random key of each row.
    seen_BxV: jax.Array | None  # bool: tokens that the repetition penalty applies to.
    log_probs: LogProbs | None  # BxS, if they were asked for.


def _begin_batch(
    model: Model, layout: Layout, params: Params, prompts: Prompts
) -> tuple[Cache, DecodeState, LogProbs | None]:
    """Read the prompts, each once, whatever the number of its samples.

    Args:
        model: An unrolled model.
        layout: The shapes.
        params: The model's parameters.
        prompts: The prompts.

    Returns:
        The cache and the state of the samples' rows, those of a prompt side by side, and the
        log-probabilities of the prompts' tokens after the first, Nx(P-1), if they were asked for.
    """
    prompts = Prompts(*map(jnp.asarray, prompts))
    tokens_NxP, lengths_N, *_ = prompts
    P = tokens_NxP.shape[1]
    decoder = isinstance(model.config, DecoderConfig)
    states_NxD, cache, x_NxPxD = prefill(
        model,
        params,
        tokens_NxP,
        lengths_N,
        n_new=layout.n_slots - (P if decoder else 1),
        bidirectional_prompt=layout.bidirectional_prompt,
        text_lengths_B=prompts.text_lengths_N if decoder else None,
    )
    of_prompts = None
    if layout.n_prompt_top >= 0:
        assert x_NxPxD is not None, "only a decoder predicts its prompt"
        of_prompts = prompt_log_probs(model, params, x_NxPxD, tokens_NxP, layout.n_prompt_top)
    state = _begun(model, layout, states_NxD, prompts)
    return repeat_rows(cache, layout.n_copies), state, of_prompts


begin_batch = jax.jit(_begin_batch, static_argnums=(0, 1))

# Eigen multiplies many rows faster than YNNPACK, which XLA takes on a CPU: 64 prompts of 64 tokens
# were read 1.09 times as fast, of 32 tokens 1.07 times, and of 16 tokens 1.02 times (SmolLM2-135M's
# shape, two AVX-512 cores, nothing else running). Compiling takes 0.4 s more of CPU time.
begin_batch_by_eigen = jax.jit(_begin_batch, static_argnums=(0, 1), compiler_options=EIGEN)


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def continue_text(
    model: Model,
    layout: Layout,
    params: Params,
    cache: Cache,
    prompt: Prompts,
    n_kept: jax.Array,
    rest_1xL: jax.Array,
) -> tuple[Cache, DecodeState]:
    """Read the rest of a prompt whose beginning is in a decoder's cache.

    Args:
        model: An unrolled model.
        layout: As for `begin_batch`, for one row; the cache has its slots already.
        params: The model's parameters.
        cache: That of one row, whose token n is in slot n; donated.
        prompt: The whole prompt.
        n_kept: int32 scalar; tokens of the prompt that are in the cache. What follows them there is
            forgotten.
        rest_1xL: The other tokens of the prompt, at least one, padded on the right. The cache has
            slots for the padding too.
    """
    prompt = Prompts(*map(jnp.asarray, prompt))
    n_rest = prompt.lengths_N[0] - n_kept
    cache = forget_from(cache, n_kept)._replace(text_lengths_B=prompt.text_lengths_N)
    state_1xD, cache = append_text(model, params, rest_1xL, n_rest, cache)
    return cache, _begun(model, layout, state_1xD, prompt)


def _begun(model: Model, layout: Layout, states_NxD: jax.Array, prompts: Prompts) -> DecodeState:
    """The state of a batch whose prompts have been read."""
    tokens_NxP, lengths_N, seeds_Nx2, index_N, _ = prompts
    n_prompts, P = tokens_NxP.shape
    seen_NxV = None
    if layout.penalizes:
        # The penalty applies to what the decoder has read: its prompt, or its first input.
        n_vocab = model.config.vocab_size
        if isinstance(model.config, DecoderConfig):
            is_prompt_NxP = jnp.arange(P) < lengths_N[:, None]
            read_NxP = jnp.where(is_prompt_NxP, tokens_NxP, n_vocab)
        else:
            read_NxP = jnp.full((n_prompts, 1), model.config.decoder_start_id)
        row_Nx1 = jnp.arange(n_prompts)[:, None]
        unseen_NxV = jnp.zeros((n_prompts, n_vocab), bool)
        seen_NxV = unseen_NxV.at[row_Nx1, read_NxP].set(True, mode="drop")

    def make_keys(seed_2: jax.Array, index: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.wrap_key_data(seed_2, impl="threefry2x32"), index)
        sample_C = jnp.arange(layout.n_copies)
        return jax.vmap(lambda sample: jax.random.fold_in(key, sample))(sample_C)

    copied = functools.partial(jnp.repeat, repeats=layout.n_copies, axis=0)
    B = n_prompts * layout.n_copies
    kept = None
    if layout.n_top >= 0:
        at_B = (B, layout.n_slots)
        kept = LogProbs(
            jnp.zeros(at_B, jnp.float32),
            jnp.zeros((*at_B, layout.n_top), jnp.float32),
            jnp.zeros((*at_B, layout.n_top), jnp.int32),
        )
    return DecodeState(
        tokens_BxS=jnp.full((B, layout.n_slots), layout.pad_id, jnp.int32),
        counts_B=jnp.zeros(B, jnp.int32),
        running_B=copied(index_N >= 0),
        states_BxD=copied(states_NxD),
        n=jnp.int32(0),
        keys_B=jax.vmap(make_keys)(seeds_Nx2, index_N).reshape(B),
        seen_BxV=None if seen_NxV is None else copied(seen_NxV),
        log_probs=kept,
    )


def _advance_batch(
    model: Model,
    program: SamplingProgram,
    params: Params,
    cache: Cache,
    state: DecodeState,
    settings: RowSettings,
    wanted_B: jax.Array,
    limit: jax.Array,
) -> tuple[Cache, DecodeState]:
    """Make tokens until there are `limit`, or no row that is wanted is running.

    A token is fed back when the next one is wanted: the last one of an answer never is.

    Args:
        model: An unrolled model.
        program: How tokens are chosen.
        params: The model's parameters.
        cache: Donated.
        state: The batch so far.
        settings: What is done in each row.
        wanted_B: bool; rows that the host has not ended.
        limit: int32 scalar; the tokens made in all, those of earlier blocks among them.
    """
    state = state._replace(running_B=state.running_B & wanted_B)
    stop_ids_BxI = jnp.asarray(settings.stop_ids_BxI)

    def unfinished(carry: tuple[Cache, DecodeState]) -> jax.Array:
        _, state = carry
        return (state.n < limit) & state.running_B.any()

    def choose(state: DecodeState) -> DecodeState:
        keys_B = jax.vmap(lambda key: jax.random.fold_in(key, state.n))(state.keys_B)
        logits_BxV = model.logits(params, state.states_BxD)
        token_B = sample_token(logits_BxV, keys_B, settings.sampling, program, state.seen_BxV)
        seen_BxV = state.seen_BxV
        if seen_BxV is not None:
            seen_BxV = seen_BxV.at[jnp.arange(token_B.shape[0]), token_B].set(True)

        def put(kept: jax.Array, new: jax.Array) -> jax.Array:
            return jax.lax.dynamic_update_index_in_dim(kept, new, state.n, axis=1)

        kept = state.log_probs
        if kept is not None:
            new = log_probs(logits_BxV, token_B, kept.top.shape[-1])
            kept = LogProbs(*map(put, kept, new))
        counts_B = state.counts_B + state.running_B
        is_last_B = (token_B[:, None] == stop_ids_BxI).any(axis=1) | (counts_B >= settings.limits_B)
        return state._replace(
            tokens_BxS=put(state.tokens_BxS, token_B),
            counts_B=counts_B,
            running_B=state.running_B & ~is_last_B,
            n=state.n + 1,
            seen_BxV=seen_BxV,
            log_probs=kept,
        )

    def step(carry: tuple[Cache, DecodeState]) -> tuple[Cache, DecodeState]:
        cache, state = carry
        last_B = jax.lax.dynamic_index_in_dim(state.tokens_BxS, state.n - 1, 1, keepdims=False)
        states_BxD, cache = extend(model, params, last_B, cache)
        return cache, choose(state._replace(states_BxD=states_BxD))

    # The first token is predicted by the prompt.
    state = jax.lax.cond(state.n == 0, choose, lambda state: state, state)
    cache, state = jax.lax.while_loop(unfinished, step, (cache, state))
    # What the host reads is made whole on every device, so that every process can read it.
    return cache, state._replace(
        tokens_BxS=rules.constrain(state.tokens_BxS, None, None),
        counts_B=rules.constrain(state.counts_B, None),
        running_B=rules.constrain(state.running_B, None),
        log_probs=state.log_probs and state.log_probs.replicated(),
    )


advance_batch = jax.jit(_advance_batch, static_argnums=(0, 1), donate_argnums=(3,))

# XLA on CPU gives matrix products to YNNPACK. Where there is no AVX-512, that is slower than Eigen
# for a few rows: without it, 8 rows of SmolLM2-135M were decoded 1.37 times as fast and 32 rows
# 1.24 times, but one row no faster. With AVX-512 it is faster: 1.17 times for 8 rows, 1.15 for 32
# and 64.
advance_batch_by_eigen = jax.jit(
    _advance_batch,
    static_argnums=(0, 1),
    donate_argnums=(3,),
    compiler_options=EIGEN,
)
