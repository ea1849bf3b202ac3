"""Keys and values of attention, and one layer's part of a key-value cache."""

from typing import NamedTuple

import jax


class KVPair(NamedTuple):
    """Keys and values with the heads before the positions: the layout that products read."""

    keys_BxGxSxK: jax.Array
    values_BxGxSxK: jax.Array


class LayerCache(NamedTuple):
    """The cached keys and values of one layer, and where those of new tokens go."""

    kv: KVPair
    slot: jax.Array  # int32 scalar: the first slot of the new tokens, in all rows.

    def write(self, new: KVPair) -> KVPair:
        """The cached keys and values with those of the new tokens at `slot`."""

        def put(old: jax.Array, new: jax.Array) -> jax.Array:
            return jax.lax.dynamic_update_slice_in_dim(old, new, self.slot, axis=2)

        return KVPair(
            put(self.kv.keys_BxGxSxK, new.keys_BxGxSxK),
            put(self.kv.values_BxGxSxK, new.values_BxGxSxK),
        )
