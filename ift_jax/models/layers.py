"""The layers that both architectures share: linear projection, norms and MLP.

Shape suffixes: B rows, L positions, D model width, F hidden units of the MLP, W weights.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ift_jax.models.column_norms import column_norms
from ift_jax.models.dropout import apply_dropout, drop_elements
from ift_jax.models.quantization import QuantizedWeight, quantize
from ift_jax.models.quantized_matmul import quantized_matmul, whole_weight
from ift_jax.models.xielu import XIELU
from ift_jax.sharding import rules
from ift_jax.sharding.fsdp import flat_matmul

# Each weight takes the next key. The keys of a module are split at once: `nnx.Rngs` folds one for
# each weight, and then the initialization takes twice as long to compile.
Keys = Iterator[jax.Array]
KEYS_AT_ONCE = 16  # As many as the weights of nearly every layer, or of a model outside its layers.


def keys_of_weights(keys_W: jax.Array) -> Keys:
    """Yield a module's keys, and as many again where it has more weights than keys were split."""
    yield from keys_W
    yield from jax.random.split(jax.random.fold_in(keys_W[-1], 0), len(keys_W))


def _gelu_exact(x: jax.Array) -> jax.Array:
    return jax.nn.gelu(x, approximate=False)


def _gelu_tanh(x: jax.Array) -> jax.Array:
    return jax.nn.gelu(x, approximate=True)


def _relu_squared(x: jax.Array) -> jax.Array:
    return jnp.square(jax.nn.relu(x))


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "relu2": _relu_squared,
    "silu": jax.nn.silu,
    "gelu": _gelu_exact,
    "gelu_tanh": _gelu_tanh,
}


def init_weight(
    keys: Keys, sizes: tuple[int, ...], axes: tuple[str | None, ...], std: float
) -> Any:
    """A float32 parameter, normally distributed and truncated at two standard deviations.

    Args:
        keys: The next one is taken.
        sizes: The weight's shape.
        axes: Its logical axes.
        std: The standard deviation after truncation.
    """
    # A unit normal that is truncated at +-2 has a standard deviation of 0.8796.
    values = jax.random.truncated_normal(next(keys), -2.0, 2.0, sizes) * (std / 0.87962566)
    return nnx.Param(values, axes=axes)


class Linear(nnx.Module):
    """`x @ weight (+ bias)`, and beside it the low-rank product of a LoRA adapter, if attached."""

    def __init__(
        self,
        d_in: int,
        d_out: int,
        axes: tuple[str, str],
        *,
        keys: Keys,
        std: float | None = None,
        bias: bool = False,
    ):
        """Initialize the weight, (d_in, d_out), and the bias at zero.

        Args:
            d_in: The size of the input's last axis.
            d_out: The size of the output's last axis.
            axes: The weight's logical axes.
            keys: The weight's random key.
            std: The weight's standard deviation; None: d_in ** -0.5.
            bias: Whether there is a bias.
        """
        self.axes = axes
        std = d_in**-0.5 if std is None else std
        self.weight: Any = init_weight(keys, (d_in, d_out), axes, std)
        # Instead of the weight after `quantize_weight`.
        self.weight_values: Any = nnx.data(None)
        self.weight_scales: Any = nnx.data(None)
        self.bias = nnx.Param(jnp.zeros((d_out,)), axes=axes[1:]) if bias else None
        # `ift_jax.models.lora` attaches adapters.
        self.lora_a: Any = nnx.data(None)
        self.lora_b: Any = nnx.data(None)
        self.lora_magnitude: Any = nnx.data(None)  # DoRA has it.
        self.lora_scale = 0.0
        self.lora_dropout = 0.0
        self.lora_dropout_keys: Any = nnx.data(None)  # Key data, Bx2; without dropout None.

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply it over the last axis, in the dtype of `x`."""
        if self.weight is None:
            y = quantized_matmul(x, self._quantized_weight(), self.axes)
        else:
            y = flat_matmul(x, self.weight[...], x.dtype, self.axes)
        if self.lora_a is not None:
            y = self._adapted(x, y)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)

    def _adapted(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """The output with the adapter, given the output `y` of the weight alone."""
        a, b = self.lora_a[...], self.lora_b[...]
        h = flat_matmul(drop_elements(x, self.lora_dropout_keys, self.lora_dropout), a, x.dtype)
        y += self.lora_scale * flat_matmul(h, b, x.dtype)
        if self.lora_magnitude is None:
            return y
        constant_a, constant_b = map(jax.lax.stop_gradient, (a, b))
        if self.weight is None:
            weight = whole_weight(self._quantized_weight(), self.axes, x.dtype)
        else:
            weight = self.weight[...]
        norms = column_norms(weight, constant_a, constant_b, self.lora_scale)
        return (y * (self.lora_magnitude[...] / norms)).astype(x.dtype)

    def quantize_weight(self, kind: str) -> None:
        """Hold the weight as a `QuantizedWeight` of a kind instead; stacked layers may."""
        d_in_axis, d_out_axis = self.axes
        quantized = quantize(self.weight[...], kind)
        self.weight_values = nnx.Param(quantized.values, axes=(d_in_axis, None, d_out_axis))
        self.weight_scales = nnx.Param(quantized.scales, axes=(d_in_axis, None, d_out_axis))
        self.weight = None

    def _quantized_weight(self) -> QuantizedWeight:
        return QuantizedWeight(self.weight_values[...], self.weight_scales[...])


def multiply(x: jax.Array, factor: float) -> jax.Array:
    """Multiply x by a number, in x's dtype."""
    return x if factor == 1.0 else x * jnp.asarray(factor, x.dtype)


def rms_normalize(x: jax.Array, eps: float) -> jax.Array:
    """`x / rms(x)` over the last axis, in float32."""
    y = x.astype(jnp.float32)
    return y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + eps)


class RMSNorm(nnx.Module):
    """`x / rms(x) * (scale + offset)` over the last axis, in float32, returned in x's dtype.

    Zhang and Sennrich 2019 (arXiv:1910.07467). At first scale + offset is 1.
    """

    def __init__(self, size: int, eps: float, offset: float = 0.0):
        self.scale = nnx.Param(jnp.full((size,), 1.0 - offset), axes=("norm",))
        self.eps = eps
        self.offset = offset

    def __call__(self, x: jax.Array) -> jax.Array:
        y = rms_normalize(x, self.eps)
        return (y * (self.scale[...] + self.offset)).astype(x.dtype)


class LayerNorm(nnx.Module):
    """`(x - mean(x)) / std(x) * (scale + offset) + bias` over the last axis.

    Ba, Kiros and Hinton 2016 (arXiv:1607.06450). Computed in float32, returned in x's dtype.
    """

    def __init__(
        self,
        size: int,
        eps: float,
        offset: float = 0.0,
        *,
        weighted: bool,
        biased: bool,
        n_heads: int = 0,
    ):
        """Initialize scale + offset at 1, and the bias at 0, of those that there are.

        Args:
            size: The size of the last axis.
            eps: Is added to the variance.
            offset: Is added to the scale.
            weighted: Whether there is a scale.
            biased: Whether there is a bias.
            n_heads: How many heads, along the axis before the last, have scales of their own; 0:
                one scale for all.
        """
        sizes, axes = ((n_heads, size), ("norm_heads", "norm")) if n_heads else ((size,), ("norm",))
        self.scale = nnx.Param(jnp.full(sizes, 1.0 - offset), axes=axes) if weighted else None
        self.bias = nnx.Param(jnp.zeros((size,)), axes=("norm",)) if biased else None
        self.eps = eps
        self.offset = offset

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x.astype(jnp.float32)
        y = rms_normalize(y - jnp.mean(y, axis=-1, keepdims=True), self.eps)
        if self.scale is not None:
            y = y * (self.scale[...] + self.offset)
        if self.bias is not None:
            y = y + self.bias[...]
        return y.astype(x.dtype)


Norm = RMSNorm | LayerNorm


def make_norm(kind: str, size: int, eps: float, offset: float) -> Norm:
    """A norm of a kind that `DecoderConfig.norm` names."""
    if kind == "rms":
        return RMSNorm(size, eps, offset)
    weighted = kind != "plain_layer"
    return LayerNorm(size, eps, offset, weighted=weighted, biased=kind == "biased_layer")


class MLP(nnx.Module):
    """`down(activation(gate(x)) * up(x))`, or `down(activation(up(x)))` without a gate."""

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        activation: str,
        *,
        keys: Keys,
        gated: bool = True,
        bias: bool = False,
    ):
        self.activation = activation
        self.xielu = XIELU() if activation == "xielu" else None
        up_axes = ("embed", "mlp")
        down_axes = ("mlp", "embed")
        self.gate = Linear(d_model, d_ff, up_axes, bias=bias, keys=keys) if gated else None
        self.up = Linear(d_model, d_ff, up_axes, bias=bias, keys=keys)
        self.down = Linear(d_ff, d_model, down_axes, bias=bias, keys=keys)

    def __call__(self, x_BxLxD: jax.Array, dropout_Bx1xF: jax.Array | None = None) -> jax.Array:
        """Apply the MLP: BxLxD. The dropout mask multiplies the hidden units (T5)."""
        activate = ACTIVATIONS[self.activation] if self.xielu is None else self.xielu
        up_BxLxF = self.up(x_BxLxD)
        if self.gate is None:
            h_BxLxF = activate(up_BxLxF)
        else:
            h_BxLxF = activate(self.gate(x_BxLxD)) * up_BxLxF
        h_BxLxF = rules.constrain(h_BxLxF, "batch", "length", "mlp_act")
        return self.down(apply_dropout(h_BxLxF, dropout_Bx1xF))
