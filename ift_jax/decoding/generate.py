"""Generation in batches. Shape suffixes: B rows, P places for prompts, N new tokens."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ift_jax import partitioning
from ift_jax.config import DecoderConfig
from ift_jax.decoding.cache import Cache, extend, prefill
from ift_jax.decoding.sampling import Sampling, choose
from ift_jax.models.definition import Model, Params


def generate(
    model: Model,
    params: Params,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    pad_id: int,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    batch_size: int = 32,
    bidirectional_prompt: bool = False,
) -> list[list[int]]:
    """Continues each prompt until a stop token or `max_new_tokens`.

    What is drawn for a prompt depends on (seed, the prompt's index, the token's index), not on
    the prompts beside it. Prompts are batched by length and padded to one of a few lengths, so
    that few programs are compiled.

    Args:
        model: the model; its parameters are unrolled for decoding (`Model.unstack`).
        params: as training has them.
        prompts: token ids; for an encoder-decoder the encoder's input, which may be empty.
        max_new_tokens: at least 1.
        stop_ids: tokens that end a row.
        pad_id: fills prompts up; also the decoder's first input of an encoder-decoder.
        temperature: 0 is greedy.
        top_k: > 0: only the k likeliest tokens are drawn from.
        top_p: < 1: only the likeliest tokens that together reach it.
        seed: of sampling.
        batch_size: rows that are decoded together.
        bidirectional_prompt: for a decoder trained with `bidirectional_prefix`.

    Returns:
        For each prompt the new tokens, the stop token included if one was produced.

    Raises:
        ValueError: an empty prompt for a decoder, or a parameter out of range.
    """
    if max_new_tokens < 1 or batch_size < 1:
        raise ValueError("max_new_tokens and batch_size must be at least 1")
    if isinstance(model.config, DecoderConfig) and any(len(prompt) == 0 for prompt in prompts):
        raise ValueError("a decoder needs at least one token of prompt")
    sampling = Sampling(temperature, top_k, top_p)
    params = model.unstack(params)
    by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    rows = min(batch_size, 1 << (len(prompts) - 1).bit_length()) if prompts else 0
    new: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(prompts), max(rows, 1)):
        chosen = by_length[start : start + rows]
        places = bucket(max(len(prompts[i]) for i in chosen))
        prompts_BxP = np.full((rows, places), pad_id, np.int32)
        lengths_B = np.ones(rows, np.int32)
        for row, i in enumerate(chosen):
            prompts_BxP[row, : len(prompts[i])] = prompts[i]
            lengths_B[row] = len(prompts[i])
        index_B = np.full(rows, -1, np.int32)
        index_B[: len(chosen)] = chosen
        tokens_BxN, counts_B = _decode(
            model.unrolled,
            max_new_tokens,
            tuple(stop_ids),
            pad_id,
            sampling,
            bidirectional_prompt,
            params,
            prompts_BxP,
            lengths_B,
            index_B,
            jax.random.key(seed),
        )
        tokens_BxN, counts_B = np.asarray(tokens_BxN), np.asarray(counts_B)
        for row, i in enumerate(chosen):
            new[i] = tokens_BxN[row, : counts_B[row]].tolist()
    return new


def bucket(length: int) -> int:
    """The padded length: 16, 24, 32, 48, 64, 96, ... so at most half as much again."""
    size = 16
    while size < length:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return size


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4, 5))
def _decode(
    model: Model,
    n_new: int,
    stop_ids: tuple[int, ...],
    pad_id: int,
    sampling: Sampling,
    bidirectional_prompt: bool,
    params: Params,
    prompts_BxP: jax.Array,
    lengths_B: jax.Array,
    index_B: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The whole decoding of a batch: new tokens BxN and how many of them count, B.

    Rows of index -1 fill the batch up: they are done from the start.
    """
    keys_B = jax.vmap(lambda index: jax.random.fold_in(key, index))(index_B)

    def next_token(states_BxD: jax.Array, n: jax.Array) -> jax.Array:
        of_token_B = jax.vmap(lambda row_key: jax.random.fold_in(row_key, n))(keys_B)
        return choose(model.logits(params, states_BxD), of_token_B, sampling)

    def ended(token_B: jax.Array) -> jax.Array:
        return jnp.isin(token_B, jnp.asarray(stop_ids, jnp.int32))

    # The last token that is made is never read, so it needs no slot.
    states_BxD, cache = prefill(
        model,
        params,
        prompts_BxP,
        lengths_B,
        n_new=n_new - 1,
        start_id=pad_id,
        bidirectional_prompt=bidirectional_prompt,
    )
    first_B = next_token(states_BxD, jnp.int32(0))
    tokens_BxN = jnp.full((prompts_BxP.shape[0], n_new), pad_id, jnp.int32).at[:, 0].set(first_B)
    running_B = index_B >= 0
    Carry = tuple[jax.Array, jax.Array, jax.Array, jax.Array, Cache]

    def unfinished(carry: Carry) -> jax.Array:
        n, _, running_B, _, _ = carry
        return (n < n_new) & running_B.any()

    def step(carry: Carry) -> Carry:
        n, tokens_BxN, running_B, counts_B, cache = carry
        previous_B = jax.lax.dynamic_index_in_dim(tokens_BxN, n - 1, axis=1, keepdims=False)
        states_BxD, cache = extend(model, params, previous_B, cache)
        token_B = next_token(states_BxD, n)
        tokens_BxN = jax.lax.dynamic_update_index_in_dim(tokens_BxN, token_B, n, axis=1)
        counts_B = counts_B + running_B
        return n + 1, tokens_BxN, running_B & ~ended(token_B), counts_B, cache

    carry = (
        jnp.int32(1),
        tokens_BxN,
        running_B & ~ended(first_B),
        running_B.astype(jnp.int32),
        cache,
    )
    _, tokens_BxN, _, counts_B, _ = jax.lax.while_loop(unfinished, step, carry)
    # Whole on every device, so that every process can read them.
    return partitioning.constrain(tokens_BxN, None, None), partitioning.constrain(counts_B, None)
