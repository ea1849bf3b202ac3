"""Frozen weights in 8 or 4 bits: blocks of integers with one scale each.

"nf4" is the 4-bit NormalFloat of QLoRA (Dettmers et al. 2023, arXiv:2305.14314): the 16 levels are
quantiles of a normal distribution, and a block of 64 inputs of one output is scaled by its largest
number. With its scale, which stays float32, a weight takes 4.5 bits; the scales are not quantized
once more. "int8" has the same blocks, with the levels -127 to 127.

Blocks are along the inputs of a product, as in bitsandbytes, so its 4-bit weights are the same.

Shape suffixes: D inputs of a weight, F its outputs; N blocks, T inputs of a block, P bytes of them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

BLOCK = 64  # Inputs; the largest power of two that divides the inputs if 64 does not.
# Appendix E of the paper.
NF4_LEVELS = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)  # fmt: skip
_INT8_LARGEST = 127


class QuantizedWeight(NamedTuple):
    """A weight DxF in blocks of its inputs, with any leading axes of layers."""

    values: jax.Array  # int8 NxTxF, or uint8 NxPxF with two 4-bit levels in a byte.
    scales: jax.Array  # float32 Nx1xF


def quantize(w_DxF: jax.Array, kind: str) -> QuantizedWeight:
    """Round a weight to the nearest levels of its blocks.

    Only products and comparisons decide, never a quotient, which TPUs do not round as CPUs do: a
    run's frozen weights are recognized by their bits on another platform.

    Args:
        w_DxF: The weight, with any leading axes of layers, which are quantized one by one: the
            intermediate values of one layer are in memory at a time.
        kind: "int8" or "nf4".
    """
    if w_DxF.ndim > 2:
        return jax.lax.map(lambda w: quantize(w, kind), w_DxF)
    D, F = w_DxF.shape
    size = block_size(D)
    w_NxTxF = w_DxF.astype(jnp.float32).reshape(D // size, size, F)
    largest_Nx1xF = jnp.abs(w_NxTxF).max(axis=1, keepdims=True)
    if kind == "int8":
        return _quantize_int8(w_NxTxF, largest_Nx1xF)
    level_NxTxF = jnp.zeros(w_NxTxF.shape, jnp.uint8)
    for below, above in zip(NF4_LEVELS, NF4_LEVELS[1:], strict=False):
        middle = np.float32((below + above) / 2)
        level_NxTxF += (w_NxTxF > middle * largest_Nx1xF).astype(jnp.uint8)
    # The halves of a block share bytes, so that unpacking joins two pieces and interleaves nothing.
    first_NxPxF, second_NxPxF = jnp.split(level_NxTxF, 2, axis=1)
    return QuantizedWeight(first_NxPxF | (second_NxPxF << 4), largest_Nx1xF)


def _quantize_int8(w_NxTxF: jax.Array, largest_Nx1xF: jax.Array) -> QuantizedWeight:
    scale = largest_Nx1xF * np.float32(1 / _INT8_LARGEST)
    # The quotient may be off by a rounding, so the products say whether a neighbor is nearer.
    near = jnp.round(w_NxTxF / jnp.where(scale == 0, 1, scale))
    near += (w_NxTxF >= (near + 0.5) * scale).astype(jnp.float32)
    near -= (w_NxTxF < (near - 0.5) * scale).astype(jnp.float32)
    values = jnp.clip(near, -_INT8_LARGEST, _INT8_LARGEST).astype(jnp.int8)
    return QuantizedWeight(values, scale)


def dequantize(weight: QuantizedWeight, dtype: jnp.dtype) -> jax.Array:
    """The weight as numbers again: DxF in `dtype`, with the same leading axes."""
    values = weight.values
    numbers = _nf4_numbers(values) if values.dtype == jnp.uint8 else values.astype(jnp.float32)
    w_NxTxF = (numbers * weight.scales).astype(dtype)
    *stack, n_blocks, size, F = w_NxTxF.shape
    return w_NxTxF.reshape(*stack, n_blocks * size, F)


def _nf4_numbers(bytes_NxPxF: jax.Array) -> jax.Array:
    """The levels of packed values: NxTxF, float32.

    They are selected bit by bit. A lookup in a table would be a gather of single numbers, which is
    slow on TPU.
    """
    index_NxTxF = jnp.concatenate([bytes_NxPxF & 15, bytes_NxPxF >> 4], axis=-2)
    numbers: list[jax.Array | np.float32] = [np.float32(level) for level in NF4_LEVELS]
    for bit in range(4):
        is_set = (index_NxTxF >> bit) & 1 != 0
        numbers = [
            jnp.where(is_set, b, a) for a, b in zip(numbers[::2], numbers[1::2], strict=True)
        ]
    return jnp.asarray(numbers[0])


def block_size(n_inputs: int) -> int:
    """The inputs of a block: 64, or the largest power of two that divides all of them."""
    return min(BLOCK, n_inputs & -n_inputs)


def n_weights(values: jax.ShapeDtypeStruct | jax.Array) -> int:
    """How many weights the values of a `QuantizedWeight` are."""
    return int(np.prod(values.shape)) * (2 if values.dtype == jnp.uint8 else 1)
