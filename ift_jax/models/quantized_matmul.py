"""Products with quantized weights, which get no gradient.

Shape suffixes: B rows, L positions, D the weight's input, F its output.
"""

import functools
from typing import Any

import jax

from ift_jax.models.quantization import QuantizedWeight, dequantize
from ift_jax.sharding.fsdp import flat_matmul, gather_weight


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def quantized_matmul(
    x_BxLxD: jax.Array, weight: QuantizedWeight, axes: tuple[str, str]
) -> jax.Array:
    """Compute `x @ w` over the last axis of `x` in its dtype.

    For the backward pass only the quantized weight is kept, and dequantized once more: the numbers
    of all layers are what it saves the memory of.

    Args:
        x_BxLxD: Any leading axes.
        weight: DxF.
        axes: The logical axes of the weight's inputs and outputs.
    """
    return flat_matmul(x_BxLxD, whole_weight(weight, axes, x_BxLxD.dtype), x_BxLxD.dtype)


def whole_weight(weight: QuantizedWeight, axes: tuple[str, str], dtype: Any) -> jax.Array:
    """The numbers of a weight, whole along fsdp; what devices send each other is quantized."""
    block_axes = (axes[0], None, axes[1])
    gathered = QuantizedWeight(*(gather_weight(part, block_axes) for part in weight))
    return dequantize(gathered, dtype)


def _forward(
    x: jax.Array, weight: QuantizedWeight, axes: tuple[str, str]
) -> tuple[jax.Array, QuantizedWeight]:
    return quantized_matmul(x, weight, axes), weight


def _backward(
    axes: tuple[str, str], weight: QuantizedWeight, dy_BxLxF: jax.Array
) -> tuple[jax.Array, None]:
    w_FxD = whole_weight(weight, axes, dy_BxLxF.dtype).T
    return flat_matmul(dy_BxLxF, w_FxD, dy_BxLxF.dtype), None


quantized_matmul.defvjp(_forward, _backward)
