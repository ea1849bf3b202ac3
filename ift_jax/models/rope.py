"""Rotary positions (Su et al. 2021, arXiv:2104.09864) and the ways to stretch them.

Shape suffixes: B rows, L positions, H heads, K width of a head, K2 half of it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ift_jax.config.schema import DecoderConfig


def frequencies(config: DecoderConfig, *, local: bool) -> np.ndarray:
    """Radians per position, for each pair of a head's dimensions: K2, float32.

    `rope_scaling` stretches them for longer contexts. "linear" divides all of them by
    `rope_factor` (Chen et al. 2023, arXiv:2306.15595). "llama3" (Llama 3.1, arXiv:2407.21783)
    divides those whose wave is longer than rope_original_length / rope_low_freq_factor, leaves
    those shorter than rope_original_length / rope_high_freq_factor, and blends in between.

    Args:
        config: The model.
        local: Whether for a layer with a sliding window: it has a base of its own if the config
            gives one, and it is never stretched.
    """
    c = config
    base = c.rope_local_theta or c.rope_theta if local else c.rope_theta
    frequency_K2 = base ** (-np.arange(0, c.head_dim, 2, dtype=np.float64) / c.head_dim)
    if local or c.rope_scaling == "none":
        return frequency_K2.astype(np.float32)
    unchanged_K2: np.ndarray | float = 0.0  # The share of each that is not divided.
    if c.rope_scaling == "llama3":
        waves_K2 = c.rope_original_length * frequency_K2 / (2 * np.pi)  # In the old context.
        span = c.rope_high_freq_factor - c.rope_low_freq_factor
        unchanged_K2 = np.clip((waves_K2 - c.rope_low_freq_factor) / span, 0.0, 1.0)
    frequency_K2 = frequency_K2 * (unchanged_K2 + (1.0 - unchanged_K2) / c.rope_factor)
    return frequency_K2.astype(np.float32)


class Rope(NamedTuple):
    """Cosines and sines of the angles of positions, float32."""

    cos_BxLxK2: jax.Array
    sin_BxLxK2: jax.Array

    @classmethod
    def at(cls, positions_BxL: jax.Array, frequencies_K2: np.ndarray) -> "Rope":
        """The angles of these positions."""
        angles = positions_BxL[..., None].astype(jnp.float32) * frequencies_K2
        return cls(jnp.cos(angles), jnp.sin(angles))

    def rotate(self, x_BxLxHxK: jax.Array) -> jax.Array:
        """Rotate the pairs (i, i + K/2), the two halves of a head, as Hugging Face's Llama does."""
        a, b = jnp.split(x_BxLxHxK.astype(jnp.float32), 2, axis=-1)
        cos = self.cos_BxLxK2[:, :, None, :]
        sin = self.sin_BxLxK2[:, :, None, :]
        return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x_BxLxHxK.dtype)


class LayerRopes(NamedTuple):
    """The rotary positions of a model's global and local layers, which are mostly the same."""

    global_layers: Rope
    local_layers: Rope

    @classmethod
    def at(cls, positions_BxL: jax.Array, config: DecoderConfig) -> "LayerRopes":
        """The angles of these positions in both kinds of layers."""
        global_K2 = frequencies(config, local=False)
        local_K2 = frequencies(config, local=True)
        global_layers = Rope.at(positions_BxL, global_K2)
        if not config.sliding_window or np.array_equal(global_K2, local_K2):
            return cls(global_layers, global_layers)
        return cls(global_layers, Rope.at(positions_BxL, local_K2))

    def of_layer(self, local: jax.Array | bool) -> Rope:
        """Those of a layer; `local` may be traced."""
        if self.global_layers is self.local_layers:
            return self.global_layers

        def select(of_local: jax.Array, of_global: jax.Array) -> jax.Array:
            return jnp.where(local, of_local, of_global)

        return jax.tree.map(select, self.local_layers, self.global_layers)
