"""The key-value cache, and the two functions of a model that fill it.

A cache has the same slots for all rows: the prompts, padded on the right, take the first P, and
the n-th new token of every row goes to slot P + n. What a slot holds for a row (which position, or
nothing) is kept beside it, so that the attention mask of training serves decoding as it is. A layer
with linear attention has no slots but a state, which only goes on: no token can be forgotten.

Both functions take `model.unrolled` and the parameters of `model.unstack`. Shape suffixes: B rows,
P prompt positions, S slots, D model width, G key-value heads, K width of a head.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ift_jax.config.schema import DecoderConfig
from ift_jax.models.attention.kv import KVPair, LayerCache, LayerState, LinearState, add_slots
from ift_jax.models.attention.linear_attention import STATE_AXES, empty_state
from ift_jax.models.attention.mask import Tokens
from ift_jax.models.decoder import Decoder
from ift_jax.models.encoder_decoder import EncoderDecoder
from ift_jax.models.model import Model, Params
from ift_jax.sharding import rules

KV_AXES = ("batch", "kv_heads_act", None, None)  # As attention reads keys and values.


class CrossCache(NamedTuple):
    """What the decoder of an encoder-decoder attends to in the encoder's output."""

    layers: list[KVPair]  # Each decoder layer's keys and values.
    tokens: Tokens  # What each position holds.


class Cache(NamedTuple):
    """What decoding remembers; a pytree of fixed shapes, so that a loop can carry it."""

    layers: Sequence[LayerState]  # What each layer that keeps something has, for self-attention.
    slots: Tokens  # BxS: segment 1 where a slot holds a token, else 0.
    next_slot: jax.Array  # int32 scalar: the slot that the next token of every row takes.
    lengths_B: jax.Array  # int32: the position that the next token of each row takes.
    # int32: the most tokens of each row's text, those to come among them; of a decoder alone.
    text_lengths_B: jax.Array | None = None
    cross: CrossCache | None = None  # For an encoder-decoder.


def prefill(
    model: Model,
    params: Params,
    prompts_BxP: jax.Array,
    lengths_B: jax.Array,
    *,
    n_new: int,
    bidirectional_prompt: bool = False,
    text_lengths_B: jax.Array | None = None,
) -> tuple[jax.Array, Cache, jax.Array | None]:
    """Read the prompts: for a decoder its own text, for an encoder-decoder the encoder's input.

    Args:
        model: An unrolled model.
        params: The model's parameters.
        prompts_BxP: int32, padded on the right.
        lengths_B: int32; the tokens of each prompt, at least 1 for a decoder.
        n_new: How many slots are kept for tokens to come.
        bidirectional_prompt: Whether prompt tokens attend to each other both ways, as in a decoder
            trained with `bidirectional_prefix`.
        text_lengths_B: int32; the most tokens that will be read of each text, its prompt among
            them. A decoder with LongRoPE needs it.

    Returns:
        BxD, the states from which the first new token is predicted; the cache; and, of a decoder,
        BxPxD, the final states of the prompt.
    """
    module = model.module(params)
    n_rows, n_positions = prompts_BxP.shape
    index_BxP = jnp.broadcast_to(jnp.arange(n_positions), (n_rows, n_positions))
    prompt = Tokens((index_BxP < lengths_B[:, None]).astype(jnp.int32), index_BxP)
    if isinstance(module, EncoderDecoder):
        cache = _encode(module, prompts_BxP, prompt, n_new)
        start_B = jnp.full((n_rows,), module.config.decoder_start_id, jnp.int32)
        return *extend(model, params, start_B, cache), None

    if bidirectional_prompt:
        prompt = prompt._replace(prefix_BxL=prompt.segment_ids_BxL > 0)
    x_BxPxD, layers = module.hidden_with_cache(
        prompts_BxP, prompt, prompt, text_lengths_B=text_lengths_B
    )
    last_BxD = jnp.take_along_axis(x_BxPxD, (lengths_B - 1)[:, None, None], axis=1)[:, 0]
    slots = Tokens(
        _add_slots(prompt.segment_ids_BxL, n_new, axis=1),
        _add_slots(prompt.positions_BxL, n_new, axis=1),
    )
    layers = [add_slots(kept, n_new) for kept in layers]
    cache = Cache(layers, slots, jnp.int32(n_positions), lengths_B, text_lengths_B)
    return last_BxD, shard_cache(cache), x_BxPxD


def shard_cache(cache: Cache) -> Cache:
    """Shard rows and key-value heads over the mesh; the identity without one."""

    def shard(kept: LayerState) -> Any:
        if isinstance(kept, LinearState):
            return LinearState(
                rules.constrain(kept.channels_BxTxE, "batch", None, None),
                rules.constrain(kept.state_BxGxRxKxV, *STATE_AXES),
            )
        return KVPair(*(rules.constrain(part, *KV_AXES) for part in kept))

    cross = cache.cross
    if cross is not None:
        cross = cross._replace(layers=[shard(kv) for kv in cross.layers])
    return cache._replace(layers=[shard(kv) for kv in cache.layers], cross=cross)


def repeat_rows(cache: Cache, n: int) -> Cache:
    """Repeat every row `n` times, the copies of a row side by side."""
    if n == 1:
        return cache
    # The next slot is that of all rows.
    return shard_cache(
        jax.tree.map(lambda part: jnp.repeat(part, n, axis=0) if part.ndim else part, cache)
    )


def empty_cache(model: Model, n_slots: int) -> Cache:
    """The cache of one row of a decoder, in which token n will be in slot n."""
    c = model.config
    assert isinstance(c, DecoderConfig)
    nothing_1xS = jnp.zeros((1, n_slots), jnp.int32)

    def empty(kind: str, local: bool) -> LayerState:
        if kind == "linear":
            return empty_state(c)
        shape = (1, c.kv_heads_of(local=local), n_slots, c.head_dim_of(local=local))
        zeros = jnp.zeros(shape, jnp.dtype(c.dtype))
        return KVPair(zeros, zeros)

    of_layers = list(zip(c.attention_kinds(), c.local_layers(), strict=True))
    layers = [empty(kind, local) for kind, local in of_layers[: c.n_kv_layers]]
    slots = Tokens(nothing_1xS, nothing_1xS)
    zero_1 = jnp.zeros((1,), jnp.int32)
    return shard_cache(Cache(layers, slots, jnp.int32(0), zero_1, text_lengths_B=zero_1))


def grow(cache: Cache, n_slots: int) -> Cache:
    """The same cache with more slots."""
    n_new = n_slots - cache.slots.positions_BxL.shape[1]
    return cache._replace(
        layers=[add_slots(kept, n_new) for kept in cache.layers],
        slots=jax.tree.map(lambda part: _add_slots(part, n_new, axis=1), cache.slots),
    )


def forget_from(cache: Cache, n: jax.Array) -> Cache:
    """The cache of one row, whose token n is in slot n, with the first n tokens alone.

    The states of linear attention stay as they are: with such layers, n must be all tokens.
    """
    slot_S = jnp.arange(cache.slots.positions_BxL.shape[1])
    segments_1xS = jnp.where(slot_S < n, cache.slots.segment_ids_BxL, 0)
    slots = cache.slots._replace(segment_ids_BxL=segments_1xS)
    return cache._replace(slots=slots, next_slot=n, lengths_B=n[None])


def linear_states(cache: Cache) -> list[LinearState]:
    """A copy of the states of linear attention, which survives the donation of the cache."""
    states = [kept for kept in cache.layers if isinstance(kept, LinearState)]
    return jax.tree.map(jnp.copy, states)


def with_linear_states(cache: Cache, states: list[LinearState]) -> Cache:
    """The cache with the states that `linear_states` returned, copied once more."""
    rest = iter(jax.tree.map(jnp.copy, states))
    layers = [next(rest) if isinstance(kept, LinearState) else kept for kept in cache.layers]
    return cache._replace(layers=layers)


def append_text(
    model: Model, params: Params, tokens_1xL: jax.Array, n: jax.Array, cache: Cache
) -> tuple[jax.Array, Cache]:
    """Append n tokens to the cache of one row of a decoder, whose token n is in slot n.

    Args:
        model: An unrolled model.
        params: The model's parameters.
        tokens_1xL: int32, padded on the right. The cache must have slots for all of them; those of
            the padding are empty, and taken by the next tokens.
        n: int32 scalar; how many tokens are no padding, at least 1.
        cache: The cache.

    Returns:
        1xD, the state from which the next token is predicted, and the cache with the new tokens.
    """
    module = model.module(params)
    assert isinstance(module, Decoder)
    slot = cache.next_slot
    index_1xL = jnp.arange(tokens_1xL.shape[1])[None]
    queries = Tokens((index_1xL < n).astype(jnp.int32), cache.lengths_B[:, None] + index_1xL)
    slots = _put_tokens(cache.slots, queries, slot)
    layer_caches = [LayerCache(kept, slot) for kept in cache.layers]
    x_1xLxD, layers = module.hidden_with_cache(
        tokens_1xL, queries, slots, layer_caches, cache.text_lengths_B
    )
    last_1xD = jax.lax.dynamic_index_in_dim(x_1xLxD, n - 1, axis=1, keepdims=False)
    return last_1xD, shard_cache(
        cache._replace(
            layers=layers, slots=slots, next_slot=slot + n, lengths_B=cache.lengths_B + n
        )
    )


def _put_tokens(slots: Tokens, new: Tokens, slot: jax.Array) -> Tokens:
    """What slots hold once new tokens are in, from `slot` on."""

    def put(slots_BxS: jax.Array, new_BxL: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(slots_BxS, new_BxL, slot, axis=1)

    return Tokens(
        put(slots.segment_ids_BxL, new.segment_ids_BxL),
        put(slots.positions_BxL, new.positions_BxL),
    )


def reorder_new_slots(cache: Cache, rows_B: jax.Array, first: int) -> Cache:
    """Give each row what row `rows_B` of it has in the slots from `first` on, and its states.

    What earlier slots hold, and which slots hold a token, must be the same for both.
    """

    def reorder(part_BxGxSxK: jax.Array) -> jax.Array:
        new = part_BxGxSxK[:, :, first:][rows_B]
        return jax.lax.dynamic_update_slice_in_dim(part_BxGxSxK, new, first, axis=2)

    def reorder_layer(kept: LayerState) -> LayerState:
        if isinstance(kept, LinearState):
            return LinearState(*(part[rows_B] for part in kept))
        return KVPair(*map(reorder, kept))

    return cache._replace(layers=[reorder_layer(kept) for kept in cache.layers])


def _add_slots(x: jax.Array, n: int, *, axis: int) -> jax.Array:
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, n)
    return jnp.pad(x, widths)


def _encode(module: EncoderDecoder, prompts_BxP: jax.Array, prompt: Tokens, n_new: int) -> Cache:
    """Run the encoder; the cache of self-attention is still empty."""
    c = module.config
    n_rows = prompts_BxP.shape[0]
    n_slots = n_new + 1  # One for the first input.
    empty = jnp.zeros((n_rows, c.kv_heads, n_slots, c.head_dim), jnp.dtype(c.dtype))
    nothing_BxS = jnp.zeros((n_rows, n_slots), jnp.int32)
    encoded_BxPxD = module.encode(prompts_BxP, prompt)
    return shard_cache(
        Cache(
            layers=[KVPair(empty, empty)] * c.n_decoder_layers,
            slots=Tokens(nothing_BxS, nothing_BxS),
            next_slot=jnp.int32(0),
            lengths_B=jnp.zeros((n_rows,), jnp.int32),
            cross=CrossCache(module.project_cross_kv(encoded_BxPxD), prompt),
        )
    )


def extend(
    model: Model, params: Params, tokens_B: jax.Array, cache: Cache
) -> tuple[jax.Array, Cache]:
    """Append one token to every row.

    Returns:
        BxD, the states from which the next token is predicted, and the cache with the new token.
    """
    module = model.module(params)
    slot = cache.next_slot
    tokens_Bx1 = tokens_B[:, None]
    queries = Tokens(jnp.ones_like(tokens_B)[:, None], cache.lengths_B[:, None])
    slots = _put_tokens(cache.slots, queries, slot)
    layer_caches = [LayerCache(kept, slot) for kept in cache.layers]
    layers: Sequence[LayerState]
    if isinstance(module, Decoder):
        x_Bx1xD, layers = module.hidden_with_cache(
            tokens_Bx1, queries, slots, layer_caches, cache.text_lengths_B
        )
    else:
        assert cache.cross is not None
        x_Bx1xD, layers = module.hidden_with_cache(
            tokens_Bx1, queries, slots, layer_caches, cache.cross.layers, cache.cross.tokens
        )
    return x_Bx1xD[:, 0], shard_cache(
        cache._replace(
            layers=layers, slots=slots, next_slot=slot + 1, lengths_B=cache.lengths_B + 1
        )
    )
