"""T5Gemma's stacks: Gemma's blocks as an encoder and a decoder (arXiv:2504.06225, 2512.14856).

The encoder attends in both directions. In T5Gemma the decoder has a cross-attention between
self-attention and MLP; in T5Gemma 2 one attention reads the decoder's own tokens and the encoder's.

Shape suffixes: B rows, L positions, S encoder positions, D model width.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ift_jax.config.schema import DecoderConfig, EncoderDecoderConfig
from ift_jax.models import layers
from ift_jax.models.attention.attention import Attention
from ift_jax.models.attention.kv import KVPair, LayerCache
from ift_jax.models.attention.mask import AttentionMask, Tokens
from ift_jax.models.block import Block, apply_norm, make_decoder_norm
from ift_jax.models.decoder import GLOBAL_WINDOW, LayerMasks, layer_windows
from ift_jax.models.dropout import dropout_masks, fold_keys
from ift_jax.models.layer_stack import run_layers, stack_layers, traced_once
from ift_jax.models.rope import LayerRopes, Rope


class GemmaBlock(Block):
    """Gemma's block, which in a decoder may have cross-attention before its MLP."""

    def __init__(self, config: DecoderConfig, *, cross_width: int, keys: layers.Keys):
        """Initialize the layer.

        Args:
            config: The stack.
            cross_width: The width of the encoder's output that cross-attention reads; 0: none.
            keys: Random keys of the weights.
        """
        super().__init__(config, "full", keys=keys)
        self.cross_pre_norm = make_decoder_norm(config) if cross_width else None
        self.cross = _make_cross_attention(config, cross_width, keys) if cross_width else None
        self.cross_post_norm = make_decoder_norm(config) if cross_width else None

    def project_memory(self, encoded_BxSxD: jax.Array) -> KVPair:
        """The keys and values of the encoder's output, which have no positions."""
        attention = self.attention if self.cross is None else self.cross
        assert attention is not None
        return attention.project_kv(encoded_BxSxD)

    def apply(
        self,
        x_BxLxD: jax.Array,
        mask: AttentionMask,
        rope: Rope,
        *,
        memory: KVPair | None = None,
        cross_mask: AttentionMask | None = None,
        keys_B: jax.Array | None = None,
        cache: LayerCache | None = None,
    ) -> tuple[jax.Array, KVPair]:
        """Apply the block.

        Args:
            x_BxLxD: Hidden states.
            mask: What each position may attend to in its own stack, and without cross-attention in
                the memory behind it.
            rope: The rotary positions of `x`.
            memory: In a decoder, what `project_memory` returned.
            cross_mask: What each position may attend to in cross-attention.
            keys_B: The dropout keys of the rows; None: no dropout.
            cache: The keys and values of self-attention for earlier tokens, to which those of `x`
                are added.

        Returns:
            BxLxD, and the keys and values of self-attention: those of `x`, or the cache's.
        """
        shape = x_BxLxD.shape[1:]
        attention_dropout, cross_dropout, mlp_dropout = dropout_masks(
            keys_B, self.config.dropout, shape, shape, shape
        )
        assert self.attention is not None
        h = apply_norm(self.attention_pre_norm, x_BxLxD)
        kept = self.attention.project_kv(h, rope)
        if cache is not None:
            kept = cache.write(kept)
        attended = kept
        if memory is not None and self.cross is None:
            attended = kept.extended(memory)
        y = self.attention(h, attended, mask, rope=rope)
        x_BxLxD = x_BxLxD + self._finish(y, self.attention_post_norm, attention_dropout)

        if self.cross is not None:
            assert memory is not None and cross_mask is not None
            h = apply_norm(self.cross_pre_norm, x_BxLxD)
            y = self.cross(h, memory, cross_mask)
            x_BxLxD = x_BxLxD + self._finish(y, self.cross_post_norm, cross_dropout)

        h = apply_norm(self.mlp_pre_norm, x_BxLxD)
        y, _ = self._feed_forward(h, mask.queries.segment_ids_BxL > 0)
        return x_BxLxD + self._finish(y, self.mlp_post_norm, mlp_dropout), kept


def _make_cross_attention(config: DecoderConfig, width: int, keys: layers.Keys) -> Attention:
    c = config
    return Attention(
        c.d_model,
        c.n_heads,
        c.n_kv_heads,
        c.head_dim,
        keys=keys,
        scale=c.query_scale or c.head_dim**-0.5,
        softcap=c.attention_softcap,
        qk_norm=c.qk_norm,
        norm_eps=c.norm_eps,
        norm_offset=c.norm_offset,
        kv_width=width,
    )


class _PerLayer(NamedTuple):
    """What differs from layer to layer; each field has a leading axis of layers until a scan."""

    number: Any  # int32, from 0.
    window: Any  # int32: `layer_windows`.


class _StackMasks(NamedTuple):
    """What a stack's positions may attend to."""

    own: LayerMasks
    cross: AttentionMask | None


class GemmaStack(nnx.Module):
    """The encoder or the decoder: layers and the final norm."""

    def __init__(
        self, config: EncoderDecoderConfig, *, decoder: bool, keys: layers.Keys, stacked: bool
    ):
        self.config = config.stack(decoder=decoder)
        self.decoder = decoder
        self.merged = config.merged_attention
        cross_width = config.encoder_width if decoder and not self.merged else 0
        self.layers = stack_layers(
            lambda layer_keys, _: GemmaBlock(self.config, cross_width=cross_width, keys=layer_keys),
            self.config.layer_kinds(),
            keys,
            stacked,
        )
        self.final_norm = make_decoder_norm(self.config)

    def _masks(
        self, queries: Tokens, keys: Tokens, memory: Tokens | None, implementation: str
    ) -> _StackMasks:
        """Create the masks; `memory` are the encoder's tokens, for a decoder."""
        c = self.config
        cross = None
        if self.merged:
            queries, keys = _merged_tokens(queries, keys, memory, c.sliding_window)
        elif memory is not None:
            cross = AttentionMask.create(
                queries, memory, causal=False, implementation=implementation
            )
        own = LayerMasks.create(c, queries, keys, implementation, causal=self.decoder)
        return _StackMasks(own, cross)

    def __call__(
        self,
        x_BxLxD: jax.Array,
        tokens: Tokens,
        *,
        encoded_BxSxD: jax.Array | None = None,
        encoded_tokens: Tokens | None = None,
        keys_B: jax.Array | None = None,
    ) -> jax.Array:
        """Compute the final states of a batch's rows: BxLxD.

        Args:
            x_BxLxD: Embedded tokens.
            tokens: What attention must know about them.
            encoded_BxSxD: For the decoder, the encoder's output.
            encoded_tokens: For the decoder, what attention must know about the encoder's tokens.
            keys_B: The dropout keys of the rows; None: no dropout.
        """
        c = self.config
        masks = self._masks(tokens, tokens, encoded_tokens, c.attention)
        ropes = LayerRopes.at(tokens.positions_BxL, c)

        def call(
            block: GemmaBlock, x_BxLxD: jax.Array, of_layer: _PerLayer
        ) -> tuple[jax.Array, None]:
            local = of_layer.window < GLOBAL_WINDOW
            memory = None if encoded_BxSxD is None else block.project_memory(encoded_BxSxD)
            y_BxLxD, _ = block.apply(
                x_BxLxD,
                masks.own.of_layer(local),
                ropes.of_layer(local, True),
                memory=memory,
                cross_mask=masks.cross,
                keys_B=fold_keys(keys_B, of_layer.number),
            )
            return y_BxLxD, None

        per_layer = _PerLayer(np.arange(c.n_layers), layer_windows(c))
        x_BxLxD, _ = run_layers(self.layers, x_BxLxD, call, per_layer, c.remat)
        return self.final_norm(x_BxLxD)

    def project_memory(self, encoded_BxSxD: jax.Array) -> list[KVPair]:
        """Each layer's keys and values of the encoder's output (unrolled layers only)."""
        return [block.project_memory(encoded_BxSxD) for block in self.layers]

    def step(
        self,
        x_Bx1xD: jax.Array,
        queries: Tokens,
        keys: Tokens,
        caches: list[LayerCache],
        memory: list[KVPair],
        memory_tokens: Tokens,
    ) -> tuple[jax.Array, list[KVPair]]:
        """Compute the final state of one new token per row; `EncoderDecoder` has the arguments."""
        masks = self._masks(queries, keys, memory_tokens, "plain")
        ropes = LayerRopes.at(queries.positions_BxL, self.config)
        run_block = traced_once(
            lambda block, x, mask, rope, cache, memory, cross_mask: block.apply(
                x, mask, rope, memory=memory, cross_mask=cross_mask, cache=cache
            )
        )
        local = self.config.local_layers()
        new_kv = []
        for i, block in enumerate(self.layers):
            mask, rope = masks.own.of_layer(local[i]), ropes.of_layer(local[i], True)
            x_Bx1xD, kv = run_block(block, x_Bx1xD, mask, rope, caches[i], memory[i], masks.cross)
            new_kv.append(kv)
        return self.final_norm(x_Bx1xD), new_kv


def _merged_tokens(
    queries: Tokens, keys: Tokens, memory: Tokens | None, window: int
) -> tuple[Tokens, Tokens]:
    """The tokens between which T5Gemma 2 attends.

    A decoder's keys are its own and the encoder's. In the encoder a local layer attends to `window`
    tokens around each, itself among them; if that number is even, to one more after it than before.
    In halves of a position, that is a distance below `window` from half a position behind it.
    """
    if memory is not None:
        parts = (keys, memory)
        return queries, Tokens(
            jnp.concatenate([part.segment_ids_BxL for part in parts], axis=1),
            jnp.concatenate([part.positions_BxL for part in parts], axis=1),
            memory_BxL=jnp.concatenate(
                [jnp.full(part.positions_BxL.shape, part is memory) for part in parts], axis=1
            ),
        )
    half_behind = int(window % 2 == 0)
    return (
        queries._replace(positions_BxL=2 * queries.positions_BxL + half_behind),
        keys._replace(positions_BxL=2 * keys.positions_BxL),
    )
