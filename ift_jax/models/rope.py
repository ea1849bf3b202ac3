"""Rotary positions (Su et al. 2021, arXiv:2104.09864) and the ways to stretch them.

Shape suffixes: B rows, L positions, H heads, K width of a head, K2 half of it.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ift_jax.config.schema import DecoderConfig


def frequencies(config: DecoderConfig, *, local: bool, long_text: bool = False) -> np.ndarray:
    """Radians per position, for each pair of a head's rotated dimensions: K2, float32.

    `rope_scaling` stretches them for longer contexts. "linear" divides all of them by
    `rope_factor` (Chen et al. 2023, arXiv:2306.15595). "llama3" (Llama 3.1, arXiv:2407.21783)
    divides those whose wave is longer than rope_original_length / rope_low_freq_factor, leaves
    those shorter than rope_original_length / rope_high_freq_factor, and blends in between.
    "yarn" (Peng et al. 2023, arXiv:2309.00071) does so between two numbers of turns within
    rope_original_length, linearly in the dimension. "longrope" (Ding et al. 2024,
    arXiv:2402.13753) divides each by a number of its own, another one in texts of more than
    rope_original_length tokens. "dynamic" stretches for texts that are longer than `max_length`,
    which a model is never given. "proportional" (Gemma 4) sets all but the highest frequencies to
    0, so that a part of each head has no positions.

    Args:
        config: The model.
        local: Whether for a layer with a sliding window: it has a base of its own if the config
            gives one, and is stretched only if `rope_scales_local`.
        long_text: Whether in a text of more than `rope_original_length` tokens, for "longrope".
    """
    c = config
    base = c.rope_local_theta or c.rope_theta if local else c.rope_theta
    n_rotated = c.rope_dim or c.head_dim_of(local=local)
    frequency_K2 = base ** (-np.arange(0, n_rotated, 2, dtype=np.float64) / n_rotated)
    if not _is_scaled(c, local) or c.rope_scaling == "dynamic":
        return frequency_K2.astype(np.float32)
    if c.rope_scaling == "longrope":
        factors_K2 = np.array(c.rope_long_factors if long_text else c.rope_short_factors)
        return (frequency_K2 / factors_K2).astype(np.float32)
    if c.rope_scaling == "proportional":
        n_turning = int(c.rope_proportion * n_rotated // 2)
        turns_K2 = np.arange(n_rotated // 2) < n_turning
        return np.where(turns_K2, frequency_K2 / c.rope_factor, 0.0).astype(np.float32)
    unchanged_K2: np.ndarray | float = 0.0  # The share of each that is not divided.
    if c.rope_scaling == "llama3":
        waves_K2 = c.rope_original_length * frequency_K2 / (2 * np.pi)  # In the old context.
        span = c.rope_high_freq_factor - c.rope_low_freq_factor
        unchanged_K2 = np.clip((waves_K2 - c.rope_low_freq_factor) / span, 0.0, 1.0)
    elif c.rope_scaling == "yarn":
        unchanged_K2 = _unchanged_by_yarn(c, base, n_rotated)
    frequency_K2 = frequency_K2 * (unchanged_K2 + (1.0 - unchanged_K2) / c.rope_factor)
    return frequency_K2.astype(np.float32)


def _is_scaled(config: DecoderConfig, local: bool) -> bool:
    """Whether the frequencies of a kind of layers are scaled."""
    return config.rope_scaling != "none" and (not local or config.rope_scales_local)


def _unchanged_by_yarn(config: DecoderConfig, base: float, n_rotated: int) -> np.ndarray:
    """The share of each frequency that YaRN does not divide: K2."""
    c = config

    def dimension(turns: float) -> float:
        """The pair of dimensions that turns this often within the old context."""
        wave = c.rope_original_length / (turns * 2 * math.pi)
        return n_rotated * math.log(wave) / (2 * math.log(base))

    first, last = dimension(c.rope_beta_fast), dimension(c.rope_beta_slow)
    if c.rope_truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, n_rotated - 1)
    last += 0.001 if first == last else 0.0  # As transformers avoids the division by zero.
    ramp_K2 = (np.arange(n_rotated // 2) - first) / (last - first)
    return np.asarray(1.0 - np.clip(ramp_K2, 0.0, 1.0))


def text_lengths(segment_ids_BxL: jax.Array, positions_BxL: jax.Array) -> jax.Array:
    """How many tokens the example of each token has: int32 BxL.

    Args:
        segment_ids_BxL: int32; the tokens of an example stand side by side.
        positions_BxL: int32; they increase within an example, from 0.
    """
    L = segment_ids_BxL.shape[1]
    next_BxL = jnp.pad(segment_ids_BxL[:, 1:], ((0, 0), (0, 1)), constant_values=-1)
    last_BxL = jnp.where(next_BxL == segment_ids_BxL, L - 1, jnp.arange(L))
    last_BxL = jax.lax.cummin(last_BxL, axis=1, reverse=True)
    return jnp.take_along_axis(positions_BxL, last_BxL, axis=1) + 1


class Rope(NamedTuple):
    """Cosines and sines of the angles of positions, float32, and what queries are multiplied by."""

    cos_BxLxK2: jax.Array
    sin_BxLxK2: jax.Array
    query_scale_BxL: jax.Array | None = None

    @classmethod
    def at(
        cls,
        positions_BxL: jax.Array,
        config: DecoderConfig,
        text_lengths_BxL: jax.Array | None = None,
        *,
        local: bool,
    ) -> "Rope":
        """The angles of these positions in a kind of layers; see `LayerRopes.at`."""
        c = config
        frequencies_K2: np.ndarray | jax.Array = frequencies(c, local=local)
        if c.rope_scaling == "longrope" and _is_scaled(c, local):
            if text_lengths_BxL is None:
                raise ValueError("with LongRoPE, angles depend on the lengths of texts: give them")
            frequencies_K2 = jnp.where(
                (text_lengths_BxL > c.rope_original_length)[..., None],
                frequencies(c, local=local, long_text=True),
                frequencies_K2,
            )
        angles = positions_BxL[..., None].astype(jnp.float32) * frequencies_K2
        cos, sin = jnp.cos(angles), jnp.sin(angles)
        if _is_scaled(c, local) and c.rope_attention_factor != 1.0:
            cos, sin = cos * c.rope_attention_factor, sin * c.rope_attention_factor
        if not c.query_beta:
            return cls(cos, sin)
        n_contexts = (positions_BxL // c.rope_original_length).astype(jnp.float32)
        return cls(cos, sin, 1.0 + c.query_beta * jnp.log1p(n_contexts))

    def rotate(self, x_BxLxHxK: jax.Array, *, interleaved: bool = False) -> jax.Array:
        """Rotate the first dimensions of each head, as many as there are angles for.

        Args:
            x_BxLxHxK: Queries or keys.
            interleaved: Whether the pairs are (2i, 2i + 1), as in GLM, or the two halves
                (i, i + n/2), as in Hugging Face's Llama.
        """
        n_rotated = 2 * self.cos_BxLxK2.shape[-1]
        x = x_BxLxHxK[..., :n_rotated].astype(jnp.float32)
        cos = self.cos_BxLxK2[:, :, None, :]
        sin = self.sin_BxLxK2[:, :, None, :]
        if interleaved:
            a, b = x[..., 0::2], x[..., 1::2]
            rotated = jnp.stack([a * cos - b * sin, b * cos + a * sin], -1).reshape(x.shape)
        else:
            a, b = jnp.split(x, 2, axis=-1)
            rotated = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)
        rotated = rotated.astype(x_BxLxHxK.dtype)
        if n_rotated == x_BxLxHxK.shape[-1]:
            return rotated
        return jnp.concatenate([rotated, x_BxLxHxK[..., n_rotated:]], -1)

    def without_rotation(self) -> "Rope":
        """The same for a layer without RoPE: `rotate` returns what it is given, exactly."""
        ones, zeros = jnp.ones_like(self.cos_BxLxK2), jnp.zeros_like(self.sin_BxLxK2)
        return self._replace(cos_BxLxK2=ones, sin_BxLxK2=zeros)


class LayerRopes(NamedTuple):
    """The rotary positions of a model's global and local layers, which are mostly the same."""

    global_layers: Rope
    local_layers: Rope
    everywhere: bool  # Whether all layers have RoPE.

    @classmethod
    def at(
        cls,
        positions_BxL: jax.Array,
        config: DecoderConfig,
        text_lengths_BxL: jax.Array | None = None,
    ) -> "LayerRopes":
        """The angles of these positions in both kinds of layers.

        Args:
            positions_BxL: int32.
            config: The model.
            text_lengths_BxL: int32, or Bx1; the tokens of the text that each position belongs to.
                Only LongRoPE needs it: all tokens of a text must have the frequencies of one side
                of `rope_original_length`, including those that a cache keeps.
        """
        c = config
        everywhere = all(c.rotating_layers())
        global_layers = Rope.at(positions_BxL, c, text_lengths_BxL, local=False)
        same_bases = c.rope_local_theta in (0.0, c.rope_theta)
        same_scaling = c.rope_scaling == "none" or c.rope_scales_local
        same_sizes = c.head_dim_of(local=False) == c.head_dim
        if not c.sliding_window or (same_bases and same_scaling and same_sizes):
            return cls(global_layers, global_layers, everywhere)
        local_layers = Rope.at(positions_BxL, c, text_lengths_BxL, local=True)
        return cls(global_layers, local_layers, everywhere)

    def of_layer(self, local: jax.Array | bool, rotates: jax.Array | bool) -> Rope:
        """Those of a layer, by whether it is local and whether it has RoPE; both may be traced."""
        rope = self.global_layers
        if self.local_layers is not rope:
            rope = _select(local, self.local_layers, rope)
        return rope if self.everywhere else _select(rotates, rope, rope.without_rotation())


def _select(condition: jax.Array | bool, rope: Rope, other: Rope) -> Rope:
    if isinstance(condition, bool):  # The heads of local and global layers may differ in width.
        return rope if condition else other

    def select_array(of_rope: jax.Array, of_other: jax.Array) -> jax.Array:
        return jnp.where(condition, of_rope, of_other)

    return jax.tree.map(select_array, rope, other)
