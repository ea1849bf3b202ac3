"""The decoder-only transformer: Llama's shape, and what its relatives change.

Shape suffixes: B rows, L positions, D model width.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ift_jax.config.schema import DecoderConfig
from ift_jax.models import layers
from ift_jax.models.attention.implementations import for_head_dim
from ift_jax.models.attention.kv import NOTHING_SHARED, LayerCache, LayerState, SharedKV
from ift_jax.models.attention.mask import AttentionMask, Tokens
from ift_jax.models.block import Block, make_decoder_norm
from ift_jax.models.dropout import dropout_row_keys, fold_keys
from ift_jax.models.embedding import EMBEDDING_AXES, embed
from ift_jax.models.layer_inputs import LayerInputs
from ift_jax.models.layer_stack import (
    part_of_stack,
    run_layers,
    split_per_layer,
    stack_layers,
    traced_once,
)
from ift_jax.models.rope import LayerRopes, text_lengths
from ift_jax.models.router import RouterSums

# With hidden states of unit size, logits then start at a standard deviation of 0.02 * sqrt(D) (0.3
# at D = 192, 1.3 at 4,096), so that the first loss is near log(V), with a tied head or not.
EMBEDDING_STD = 0.02
GLOBAL_WINDOW = np.iinfo(np.int32).max  # The window of a layer that attends to everything.


def layer_windows(config: DecoderConfig) -> np.ndarray:
    """How many tokens each layer attends to, int32; GLOBAL_WINDOW if there is no limit."""
    local = np.array(config.local_layers())
    return np.where(local, config.sliding_window, GLOBAL_WINDOW).astype(np.int32)


def softmax_windows(config: DecoderConfig) -> np.ndarray:
    """`layer_windows` of the layers with softmax attention alone."""
    return layer_windows(config)[np.array(config.attention_kinds()) == "full"]


def layer_dropout_rates(config: DecoderConfig) -> np.ndarray:
    """The dropout rate of each layer, float32.

    The schedule "linear" is LIMA's: l / (L - 1) * rate in layer l of L (arXiv:2305.11206).
    """
    lowest = 0.0 if config.dropout_schedule == "linear" else config.dropout
    return np.linspace(lowest, config.dropout, config.n_layers, dtype=np.float32)


class _PerLayer(NamedTuple):
    """What differs from layer to layer; each field has a leading axis of layers until a scan."""

    dropout: Any  # float32: `layer_dropout_rates`.
    inputs: Any  # BxLxP: what `LayerInputs` gives; None without.
    number: Any  # int32, from 0.
    rotates: Any  # bool: `DecoderConfig.rotating_layers`.
    window: Any  # int32: `layer_windows`.


class LayerMasks(NamedTuple):
    """The attention masks of a model's global and local layers."""

    global_layers: AttentionMask
    local_layers: AttentionMask

    @classmethod
    def create(
        cls,
        config: DecoderConfig,
        queries: Tokens,
        keys: Tokens,
        implementation: str,
        *,
        causal: bool = True,
    ) -> "LayerMasks":
        """Create only the masks that the config's layers need; one serves both kinds then."""

        def mask(window: int | None, *, local: bool = False) -> AttentionMask:
            return AttentionMask.create(
                queries,
                keys,
                causal=causal,
                window=window,
                adds_scores=config.attention_sinks or keys.memory_BxL is not None,
                implementation=for_head_dim(implementation, config.head_dim_of(local=local)),
            )

        if not config.sliding_window:
            everywhere = mask(None)
            return cls(everywhere, everywhere)
        local_layers = mask(config.sliding_window, local=True)
        if GLOBAL_WINDOW not in layer_windows(config):
            return cls(local_layers, local_layers)
        if config.splits_local:
            return cls(mask(None), local_layers)
        # It has a window too, so that a scan over layers can select one of the two.
        return cls(mask(int(GLOBAL_WINDOW)), local_layers)

    def of_layer(self, local: jax.Array | bool) -> AttentionMask:
        """That of a layer; `local` may be traced."""
        if isinstance(local, bool):
            return self.local_layers if local else self.global_layers
        return self.local_layers.select(local, self.global_layers)


class Decoder(nnx.Module):
    """Embedding, blocks, final norm, and a head unless it is tied."""

    def __init__(self, config: DecoderConfig, *, keys: layers.Keys, stacked: bool = True):
        c = config
        self.config = config
        sizes = (c.vocab_size, c.d_model)
        self.layer_inputs = LayerInputs(c, keys=keys) if c.layer_input_dim else None
        self.embedding = layers.init_weight(keys, sizes, EMBEDDING_AXES, EMBEDDING_STD)
        self.layers = stack_layers(
            lambda layer_keys, kind: Block(c, kind, keys=layer_keys), c.layer_kinds(), keys, stacked
        )
        self.final_norm = make_decoder_norm(c)
        head = None
        if not c.tied_embedding:
            head = layers.init_weight(keys, sizes[::-1], EMBEDDING_AXES[::-1], EMBEDDING_STD)
        self.head = head

    def _embed(self, tokens_BxL: jax.Array) -> jax.Array:
        x_BxLxD = embed(self.embedding[...], tokens_BxL, jnp.dtype(self.config.dtype))
        if self.config.scale_embedding:
            x_BxLxD = layers.multiply(x_BxLxD, self.config.d_model**0.5)
        return layers.multiply(x_BxLxD, self.config.embedding_multiplier)

    def _finish(self, x_BxLxD: jax.Array) -> jax.Array:
        """The normalized states; logits are scaled here, where a row is D numbers and not V."""
        return layers.multiply(self.final_norm(x_BxLxD), 1.0 / self.config.logits_scaling)

    def hidden_and_router(
        self, batch: dict[str, jax.Array], dropout_key: jax.Array | None
    ) -> tuple[jax.Array, RouterSums | None]:
        """Final, normalized states of a batch's tokens: BxLxD. `Model.hidden` has the details.

        Returns:
            The states, and the sums of each layer's router, None without experts.
        """
        c = self.config
        tokens = Tokens(batch["segment_ids"], batch["positions"], batch.get("prefix_mask"))
        lengths_BxL = None
        if c.rope_scaling == "longrope":
            lengths_BxL = text_lengths(tokens.segment_ids_BxL, tokens.positions_BxL)
        ropes = LayerRopes.at(tokens.positions_BxL, c, lengths_BxL)
        keys_B = dropout_row_keys(dropout_key, batch, c.dropout)
        masks = LayerMasks.create(c, tokens, tokens, c.attention)

        def run_block(
            block: Block, x_BxLxD: jax.Array, of_layer: _PerLayer, shared: SharedKV
        ) -> tuple[jax.Array, SharedKV, RouterSums | None]:
            local = of_layer.window < GLOBAL_WINDOW if block.local is None else block.local
            x_BxLxD, kept, router = block(
                x_BxLxD,
                masks.of_layer(local),
                ropes.of_layer(local, of_layer.rotates),
                keys_B=fold_keys(keys_B, of_layer.number),
                dropout=of_layer.dropout,
                input_BxLxP=of_layer.inputs,
                shared_kv=shared.of(block.local),
            )
            return x_BxLxD, shared.having(block.local, kept), router

        tokens_BxL = batch["tokens"]
        x_BxLxD = self._embed(tokens_BxL)
        per_layer = _PerLayer(
            dropout=layer_dropout_rates(c),
            inputs=self._inputs(tokens_BxL, x_BxLxD),
            number=np.arange(c.n_layers),
            rotates=np.array(c.rotating_layers()),
            window=layer_windows(c),
        )
        x_BxLxD, router = self._run_layers(run_block, x_BxLxD, per_layer)
        return self._finish(x_BxLxD), router

    def _inputs(self, tokens_BxL: jax.Array, x_BxLxD: jax.Array) -> jax.Array | None:
        """What each layer reads of the tokens beside the hidden states: NxBxLxP."""
        return None if self.layer_inputs is None else self.layer_inputs(tokens_BxL, x_BxLxD)

    def _run_layers(
        self, run_block: Any, x_BxLxD: jax.Array, per_layer: _PerLayer
    ) -> tuple[jax.Array, RouterSums | None]:
        """Run all layers; those that read the keys and values of others in a scan of their own."""
        c = self.config
        kinds = c.layer_kinds()

        def reading(shared: SharedKV) -> Any:
            def call(block: Block, x_BxLxD: jax.Array, of_layer: _PerLayer) -> Any:
                x_BxLxD, _, router = run_block(block, x_BxLxD, of_layer, shared)
                return x_BxLxD, router

            return call

        if not c.kv_shared_layers:
            call = reading(NOTHING_SHARED)
            return run_layers(self.layers, x_BxLxD, call, per_layer, c.remat, kinds)

        def filling(block: Block, state: Any, of_layer: _PerLayer) -> Any:
            x_BxLxD, shared = state
            x_BxLxD, shared, router = run_block(block, x_BxLxD, of_layer, shared)
            return (x_BxLxD, shared), router

        n_own = c.n_kv_layers
        of_own, of_others = split_per_layer(per_layer, n_own)
        own = part_of_stack(self.layers, kinds, 0, n_own)
        state = (x_BxLxD, SharedKV.zeros(c, *x_BxLxD.shape[:2]))
        (x_BxLxD, shared), _ = run_layers(own, state, filling, of_own, c.remat, kinds[:n_own])
        others = part_of_stack(self.layers, kinds, n_own, c.n_layers)
        return run_layers(others, x_BxLxD, reading(shared), of_others, c.remat, kinds[n_own:])

    def hidden_with_cache(
        self,
        tokens_BxL: jax.Array,
        queries: Tokens,
        keys: Tokens,
        caches: list[LayerCache] | None = None,
        text_lengths_B: jax.Array | None = None,
    ) -> tuple[jax.Array, list[LayerState]]:
        """Compute final states of new tokens from cached ones (unrolled layers only).

        Args:
            tokens_BxL: The new tokens.
            queries: Where the new tokens stand.
            keys: What the cache's slots hold once the new tokens are in; without a cache, as
                `queries`.
            caches: One for each layer that keeps something, which come first; None to start from
                nothing.
            text_lengths_B: int32; the most tokens of each text, those to come among them. Needed
                with LongRoPE, and the same in all calls for a text.

        Returns:
            BxLxD, and what each of these layers keeps of all tokens, the new ones among them.
        """
        c = self.config
        lengths_Bx1 = None if text_lengths_B is None else text_lengths_B[:, None]
        ropes = LayerRopes.at(queries.positions_BxL, c, lengths_Bx1)
        masks = LayerMasks.create(c, queries, keys, "plain")
        x_BxLxD = self._embed(tokens_BxL)
        inputs_NxBxLxP = self._inputs(tokens_BxL, x_BxLxD)
        rotates = c.rotating_layers()
        run_layer = traced_once(
            lambda layer, x, mask, rope, cache, layer_input, shared_kv: layer(
                x, mask, rope, cache=cache, input_BxLxP=layer_input, shared_kv=shared_kv
            )[:2]
        )
        shared = NOTHING_SHARED
        kept_by_layer = []
        for i, local in enumerate(c.local_layers()):
            keeps = i < c.n_kv_layers
            x_BxLxD, kept = run_layer(
                self.layers[i],
                x_BxLxD,
                masks.of_layer(local),
                ropes.of_layer(local, rotates[i]),
                caches[i] if caches is not None and keeps else None,
                None if inputs_NxBxLxP is None else inputs_NxBxLxP[i],
                None if keeps else shared.of(local),
            )
            if keeps:
                shared = shared.having(local, kept)
                kept_by_layer.append(kept)
        return self._finish(x_BxLxD), kept_by_layer
