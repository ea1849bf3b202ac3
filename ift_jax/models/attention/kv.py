"""What a layer remembers of earlier tokens: keys and values, or a state of constant size."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ift_jax.config.schema import DecoderConfig
from ift_jax.sharding import rules


class KVPair(NamedTuple):
    """Keys and values with the heads before the positions: the layout that products read."""

    keys_BxGxSxK: jax.Array
    values_BxGxSxK: jax.Array

    def extended(self, more: "KVPair") -> "KVPair":
        """These, and those of other positions behind them."""
        return KVPair(
            jnp.concatenate([self.keys_BxGxSxK, more.keys_BxGxSxK], axis=2),
            jnp.concatenate([self.values_BxGxSxK, more.values_BxGxSxK], axis=2),
        )


class LinearState(NamedTuple):
    """What a layer with linear attention remembers; its size does not depend on the tokens."""

    channels_BxTxE: jax.Array  # The last inputs of the convolution.
    state_BxGxRxKxV: jax.Array  # float32; see `gated_delta`.


LayerState = KVPair | LinearState


class LayerCache(NamedTuple):
    """What one layer has kept, and where the keys and values of new tokens go."""

    kept: LayerState
    slot: jax.Array  # int32 scalar: the first slot of the new tokens, in all rows.

    def write(self, new: KVPair) -> KVPair:
        """The cached keys and values with those of the new tokens at `slot`."""
        assert isinstance(self.kept, KVPair)

        def put(old: jax.Array, new: jax.Array) -> jax.Array:
            return jax.lax.dynamic_update_slice_in_dim(old, new, self.slot, axis=2)

        return KVPair(
            put(self.kept.keys_BxGxSxK, new.keys_BxGxSxK),
            put(self.kept.values_BxGxSxK, new.values_BxGxSxK),
        )


def add_slots(kept: LayerState, n: int) -> LayerState:
    """The same with n more slots for keys and values; a state of constant size has none."""
    if isinstance(kept, LinearState):
        return kept
    return KVPair(*(jnp.pad(part, ((0, 0), (0, 0), (0, n), (0, 0))) for part in kept))


class SharedKV(NamedTuple):
    """The keys and values that later layers without their own read."""

    global_layers: KVPair | None = None  # None: there are no such layers, or they come later.
    local_layers: KVPair | None = None

    def of(self, local: bool | None) -> KVPair | None:
        """Those for local or for global layers; None: the kinds of layers do not say it."""
        return self.local_layers if local else self.global_layers

    def having(self, local: bool | None, kept: LayerState) -> "SharedKV":
        """The same once a local or a global layer has computed its own."""
        if not isinstance(kept, KVPair):  # No layer reads the state of linear attention.
            return self
        return self._replace(local_layers=kept) if local else self._replace(global_layers=kept)

    @classmethod
    def zeros(cls, config: DecoderConfig, batch: int, length: int) -> "SharedKV":
        """Arrays of the shapes of those to come, for a scan to begin with."""

        def pair(*, local: bool) -> KVPair:
            heads, width = config.kv_heads_of(local=local), config.head_dim_of(local=local)
            zeros = jnp.zeros((batch, heads, length, width), jnp.dtype(config.dtype))
            zeros = rules.constrain(zeros, "batch", "kv_heads_act", "length", None)
            return KVPair(zeros, zeros)

        return cls(pair(local=False), pair(local=True))


NOTHING_SHARED = SharedKV()
