"""Rotary positions (Su et al. 2021, arXiv:2104.09864) and the ways to stretch them.

Shape suffixes: B rows, L positions, H heads, K width of a head, K2 half of it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ift_jax.config.schema import DecoderConfig


def frequencies(config: DecoderConfig, *, local: bool) -> np.ndarray:
    """Radians a position of each pair of a head's dimensions: K2, float32.

    "linear" divides all of them by `rope_factor` (Chen et al. 2023, arXiv:2306.15595). "llama3"
    (Llama 3.1, arXiv:2407.21783) divides those whose wave is longer than rope_original_length /
    rope_low_freq_factor, leaves those shorter than rope_original_length / rope_high_freq_factor,
    and blends in between. A local layer (of a sliding window) has its own base, if there is one,
    and is never scaled.
    """
    c = config
    theta = c.rope_local_theta or c.rope_theta if local else c.rope_theta
    of_pair_K2 = theta ** (-np.arange(0, c.head_dim, 2, dtype=np.float64) / c.head_dim)
    if not local and c.rope_scaling != "none":
        kept_K2: np.ndarray | float = 0.0
        if c.rope_scaling == "llama3":
            waves_K2 = c.rope_original_length * of_pair_K2 / (2 * np.pi)  # In the old context.
            span = c.rope_high_freq_factor - c.rope_low_freq_factor
            kept_K2 = np.clip((waves_K2 - c.rope_low_freq_factor) / span, 0.0, 1.0)
        of_pair_K2 = of_pair_K2 * (kept_K2 + (1.0 - kept_K2) / c.rope_factor)
    return of_pair_K2.astype(np.float32)


class Rope(NamedTuple):
    """Cosines and sines of rotary positions, float32."""

    cos_BxLxK2: jax.Array
    sin_BxLxK2: jax.Array

    @classmethod
    def at(cls, positions_BxL: jax.Array, frequencies_K2: np.ndarray) -> "Rope":
        """The angles of these positions."""
        angles = positions_BxL[..., None].astype(jnp.float32) * frequencies_K2
        return cls(jnp.cos(angles), jnp.sin(angles))

    def rotate(self, x_BxLxHxK: jax.Array) -> jax.Array:
        """Rotates pairs (i, i + K/2): the two halves of a head, as Hugging Face's Llama."""
        a, b = jnp.split(x_BxLxHxK.astype(jnp.float32), 2, axis=-1)
        cos, sin = self.cos_BxLxK2[:, :, None, :], self.sin_BxLxK2[:, :, None, :]
        return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x_BxLxHxK.dtype)


class Ropes(NamedTuple):
    """The positions of a model's two kinds of layers; mostly one and the same."""

    of_global: Rope
    of_local: Rope

    @classmethod
    def at(cls, positions_BxL: jax.Array, config: DecoderConfig) -> "Ropes":
        """Both at these positions."""
        far, near = (frequencies(config, local=local) for local in (False, True))
        of_global = Rope.at(positions_BxL, far)
        same = not config.sliding_window or np.array_equal(far, near)
        return cls(of_global, of_global if same else Rope.at(positions_BxL, near))

    def of(self, local: jax.Array | bool) -> Rope:
        """A layer's; `local` may be traced."""
        if self.of_global is self.of_local:
            return self.of_global
        return jax.tree.map(lambda a, b: jnp.where(local, a, b), self.of_local, self.of_global)
