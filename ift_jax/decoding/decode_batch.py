"""Decoding a batch on the device: reading the prompts, and the loop that makes tokens.

A batch's state stays on the device between the calls. Each call of `advance_batch` makes as many
tokens as it is told, a block; `ift_jax.decoding.generate` calls it until all rows have ended.
Shape suffixes: B rows, P prompt positions, S slots, D model width, V vocabulary.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ift_jax.config.schema import DecoderConfig
from ift_jax.decoding.cache import Cache, extend, prefill
from ift_jax.decoding.sampling import Sampling, sample_token
from ift_jax.models.model import Model, Params
from ift_jax.sharding import rules


class DecodeState(NamedTuple):
    """A batch between two blocks, apart from its cache, which is donated to every block."""

    tokens_BxS: jax.Array  # int32: the new tokens. There are at least as many slots.
    counts_B: jax.Array  # int32: how many new tokens count, those up to the row's end.
    running_B: jax.Array  # bool: rows that nothing has ended.
    states_BxD: jax.Array  # The states from which the next token is predicted.
    n: jax.Array  # int32 scalar: how many tokens were made.
    keys_B: jax.Array  # The random key of each row.
    seen_BxV: jax.Array | None  # bool: tokens that the repetition penalty applies to.


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def begin_batch(
    model: Model,
    n_slots: int,
    pad_id: int,
    bidirectional_prompt: bool,
    penalized: bool,
    params: Params,
    prompts_BxP: jax.Array,
    lengths_B: jax.Array,
    index_B: jax.Array,
    key: jax.Array,
) -> tuple[Cache, DecodeState]:
    """Read the prompts.

    Args:
        model: An unrolled model.
        n_slots: Slots of the cache: a decoder's prompts, or the first input of an
            encoder-decoder's decoder, and the new tokens.
        pad_id: The padding token, which is also the first input of an encoder-decoder's decoder.
        bidirectional_prompt: As for `prefill`.
        penalized: Whether a repetition penalty will be asked for.
        params: The model's parameters.
        prompts_BxP: int32, padded on the right.
        lengths_B: int32; the tokens of each prompt.
        index_B: int32; the index of each prompt, which its random key is made from. Rows of index
            -1 only fill the batch up.
        key: The random key of the generation.
    """
    B, P = prompts_BxP.shape
    decoder = isinstance(model.config, DecoderConfig)
    states_BxD, cache = prefill(
        model,
        params,
        prompts_BxP,
        lengths_B,
        n_new=n_slots - (P if decoder else 1),
        start_id=pad_id,
        bidirectional_prompt=bidirectional_prompt,
    )
    seen_BxV = None
    if penalized:
        # The penalty applies to what the decoder has read: its prompt, or its first input.
        n_vocab = model.config.vocab_size
        if decoder:
            is_prompt_BxP = jnp.arange(P) < lengths_B[:, None]
            read_BxP = jnp.where(is_prompt_BxP, prompts_BxP, n_vocab)
        else:
            read_BxP = jnp.full((B, 1), pad_id)
        row_Bx1 = jnp.arange(B)[:, None]
        unseen_BxV = jnp.zeros((B, n_vocab), bool)
        seen_BxV = unseen_BxV.at[row_Bx1, read_BxP].set(True, mode="drop")
    return cache, DecodeState(
        tokens_BxS=jnp.full((B, n_slots), pad_id, jnp.int32),
        counts_B=jnp.zeros(B, jnp.int32),
        running_B=index_B >= 0,
        states_BxD=states_BxD,
        n=jnp.int32(0),
        keys_B=jax.vmap(lambda index: jax.random.fold_in(key, index))(index_B),
        seen_BxV=seen_BxV,
    )


def _advance_batch(
    model: Model,
    stop_ids: tuple[int, ...],
    sampling: Sampling,
    params: Params,
    cache: Cache,
    state: DecodeState,
    wanted_B: jax.Array,
    limit: jax.Array,
) -> tuple[Cache, DecodeState]:
    """Make tokens until there are `limit`, or no row that is wanted is running.

    Every token is fed back at once, including the last, so that a block needs no position.

    Args:
        model: An unrolled model.
        stop_ids: Tokens that end a row.
        sampling: How a token is chosen.
        params: The model's parameters.
        cache: Donated.
        state: The batch so far.
        wanted_B: bool; rows that the host has not ended.
        limit: int32 scalar; the tokens made in all, those of earlier blocks among them.
    """
    state = state._replace(running_B=state.running_B & wanted_B)

    def unfinished(carry: tuple[Cache, DecodeState]) -> jax.Array:
        _, state = carry
        return (state.n < limit) & state.running_B.any()

    def step(carry: tuple[Cache, DecodeState]) -> tuple[Cache, DecodeState]:
        cache, state = carry
        keys_B = jax.vmap(lambda key: jax.random.fold_in(key, state.n))(state.keys_B)
        logits_BxV = model.logits(params, state.states_BxD)
        token_B = sample_token(logits_BxV, keys_B, sampling, state.seen_BxV)
        seen_BxV = state.seen_BxV
        if seen_BxV is not None:
            seen_BxV = seen_BxV.at[jnp.arange(token_B.shape[0]), token_B].set(True)
        states_BxD, cache = extend(model, params, token_B, cache)
        is_stop_B = jnp.isin(token_B, jnp.asarray(stop_ids, jnp.int32))
        return cache, DecodeState(
            tokens_BxS=jax.lax.dynamic_update_index_in_dim(
                state.tokens_BxS, token_B, state.n, axis=1
            ),
            counts_B=state.counts_B + state.running_B,
            running_B=state.running_B & ~is_stop_B,
            states_BxD=states_BxD,
            n=state.n + 1,
            keys_B=state.keys_B,
            seen_BxV=seen_BxV,
        )

    cache, state = jax.lax.while_loop(unfinished, step, (cache, state))
    # What the host reads is made whole on every device, so that every process can read it.
    return cache, state._replace(
        tokens_BxS=rules.constrain(state.tokens_BxS, None, None),
        counts_B=rules.constrain(state.counts_B, None),
        running_B=rules.constrain(state.running_B, None),
    )


advance_batch = jax.jit(_advance_batch, static_argnums=(0, 1, 2), donate_argnums=(4,))

# XLA on CPU gives matrix products to YNNPACK, which is slower than Eigen for a few rows: without
# it, 8 rows of SmolLM2-135M were decoded 1.37 times as fast and 32 rows 1.24 times, but one row no
# faster.
advance_batch_by_eigen = jax.jit(
    _advance_batch,
    static_argnums=(0, 1, 2),
    donate_argnums=(4,),
    compiler_options={"xla_cpu_experimental_ynn_fusion_type": ""},
)
