"""The key-value cache, and the two functions of a model that fill it.

A cache has the same slots for all rows: the prompts, padded on the right, take the first P,
and the n-th new token of every row goes to slot P + n. What a slot holds for a row (which
position, or nothing) is kept beside it, so that the mask of training serves decoding as it is.

Both functions take `model.unrolled` and the parameters of `model.unstack`. Shape suffixes: B
rows, P places for prompts, S slots, D model width.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ift_jax.models.attention.mask import Tokens
from ift_jax.models.attention.reference import KVPair
from ift_jax.models.decoder import Decoder
from ift_jax.models.model import Model, Params


class Cache(NamedTuple):
    """What decoding remembers; a pytree of fixed shapes, so a loop can carry it."""

    layers: list[KVPair]  # Self-attention, BxGxSxK each.
    slots: Tokens  # BxS: segment 1 where a slot holds a token, else 0.
    next_slot: jax.Array  # int32 scalar.
    lengths_B: jax.Array  # int32: the position that a row's next token takes.
    cross: tuple[list[KVPair], Tokens] | None = None  # Of the encoder's output.


def prefill(
    model: Model,
    params: Params,
    prompts_BxP: jax.Array,
    lengths_B: jax.Array,
    *,
    n_new: int,
    start_id: int,
    bidirectional_prompt: bool = False,
) -> tuple[jax.Array, Cache]:
    """Reads the prompts (a decoder's own text, or the encoder's input), int32, padded right.

    `lengths_B` is int32, at least 1 for a decoder; `n_new` slots are kept for tokens to come;
    `start_id` is the first decoder input of an encoder-decoder; with `bidirectional_prompt`
    prompt tokens see each other both ways (a decoder trained with `bidirectional_prefix`).

    Returns:
        BxD, the states from which the first new token is predicted, and the cache.
    """
    module, (rows, n_places) = model.module(params), prompts_BxP.shape
    place_BxP = jnp.broadcast_to(jnp.arange(n_places), (rows, n_places))
    prompt = Tokens((place_BxP < lengths_B[:, None]).astype(jnp.int32), place_BxP)
    if isinstance(module, Decoder):
        if bidirectional_prompt:
            prompt = prompt._replace(prefix_BxL=prompt.segment_ids_BxL > 0)
        x_BxPxD, caches = module.cached(prompts_BxP, prompt, prompt)
        last_BxD = jnp.take_along_axis(x_BxPxD, (lengths_B - 1)[:, None, None], axis=1)[:, 0]
        slots = Tokens(*(jnp.pad(part, ((0, 0), (0, n_new))) for part in prompt[:2]))
        more = ((0, 0), (0, 0), (0, n_new), (0, 0))
        caches = jax.tree.map(lambda part: jnp.pad(part, more), caches)
        return last_BxD, Cache(caches, slots, jnp.int32(n_places), lengths_B)
    c = module.config
    empty = jnp.zeros((rows, c.n_heads, n_new + 1, c.head_dim), jnp.dtype(c.dtype))
    nothing_BxS = jnp.zeros((rows, n_new + 1), jnp.int32)
    cache = Cache(
        layers=[KVPair(empty, empty)] * c.n_decoder_layers,
        slots=Tokens(nothing_BxS, nothing_BxS),
        next_slot=jnp.int32(0),
        lengths_B=jnp.zeros_like(lengths_B),
        cross=(module.cross_caches(module.encode(prompts_BxP, prompt)), prompt),
    )
    return extend(model, params, jnp.full((rows,), start_id, jnp.int32), cache)


def extend(
    model: Model, params: Params, tokens_B: jax.Array, cache: Cache
) -> tuple[jax.Array, Cache]:
    """Appends one token to every row: the states that predict the next one (BxD), the cache."""
    module, slot = model.module(params), cache.next_slot
    queries = Tokens(jnp.ones_like(tokens_B)[:, None], cache.lengths_B[:, None])
    put = functools.partial(jax.lax.dynamic_update_slice_in_dim, start_index=slot, axis=1)
    slots = Tokens(*map(put, cache.slots[:2], queries[:2]))
    cross = () if cache.cross is None else (cache.cross,)
    x_Bx1xD, kept = module.cached(tokens_B[:, None], queries, slots, (cache.layers, slot), *cross)
    new = cache._replace(
        layers=kept, slots=slots, next_slot=slot + 1, lengths_B=cache.lengths_B + 1
    )
    return x_Bx1xD[:, 0], new
