"""The layers that both architectures share: linear projection, norms and MLP.

Shape suffixes: B rows, L positions, D model width, F hidden units of the MLP.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ift_jax.models.dropout import apply_dropout
from ift_jax.sharding import rules
from ift_jax.sharding.fsdp import flat_matmul

# Each weight takes the next key. The keys of a module are split at once: `nnx.Rngs` folds one for
# each weight, and then the initialization takes twice as long to compile.
Keys = Iterator[jax.Array]
MAX_WEIGHTS = 16  # The most weights of a layer, or of a model outside its layers.


def _gelu_exact(x: jax.Array) -> jax.Array:
    return jax.nn.gelu(x, approximate=False)


def _gelu_tanh(x: jax.Array) -> jax.Array:
    return jax.nn.gelu(x, approximate=True)


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "gelu": _gelu_exact,
    "gelu_tanh": _gelu_tanh,
}


def init_weight(
    keys: Keys, sizes: tuple[int, int], axes: tuple[str | None, ...], std: float
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
        self.weight = init_weight(keys, (d_in, d_out), axes, d_in**-0.5 if std is None else std)
        self.bias = nnx.Param(jnp.zeros((d_out,)), axes=axes[1:]) if bias else None
        # `ift_jax.models.lora` attaches adapters.
        self.lora_a: Any = nnx.data(None)
        self.lora_b: Any = nnx.data(None)
        self.lora_scale = 0.0

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply it over the last axis, in the dtype of `x`."""
        y = flat_matmul(x, self.weight[...], x.dtype, self.axes)
        if self.lora_a is not None:
            h = flat_matmul(x, self.lora_a[...], x.dtype)
            y += self.lora_scale * flat_matmul(h, self.lora_b[...], x.dtype)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)


class RMSNorm(nnx.Module):
    """`x / rms(x) * (scale + offset)` over the last axis, in float32, returned in x's dtype.

    Zhang and Sennrich 2019 (arXiv:1910.07467). At first scale + offset is 1.
    """

    def __init__(self, size: int, eps: float, offset: float = 0.0):
        self.scale = nnx.Param(jnp.full((size,), 1.0 - offset), axes=("norm",))
        self.eps = eps
        self.offset = offset

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + self.eps)
        return (y * (self.scale[...] + self.offset)).astype(x.dtype)


class LayerNorm(nnx.Module):
    """`(x - mean(x)) / std(x)` over the last axis, times a weight if there is one, without a bias.

    Ba, Kiros and Hinton 2016 (arXiv:1607.06450). Computed in float32, returned in x's dtype.
    """

    def __init__(self, size: int, eps: float, *, weighted: bool):
        self.scale = nnx.Param(jnp.ones((size,)), axes=("norm",)) if weighted else None
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x.astype(jnp.float32)
        y = y - jnp.mean(y, axis=-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + self.eps)
        return (y if self.scale is None else y * self.scale[...]).astype(x.dtype)


Norm = RMSNorm | LayerNorm


def make_norm(kind: str, size: int, eps: float, offset: float) -> Norm:
    """A norm of a kind that `DecoderConfig.norm` names; only "rms" has an offset."""
    if kind == "rms":
        return RMSNorm(size, eps, offset)
    return LayerNorm(size, eps, weighted=kind == "layer")


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
        up_axes = ("embed", "mlp")
        down_axes = ("mlp", "embed")
        self.gate = Linear(d_model, d_ff, up_axes, bias=bias, keys=keys) if gated else None
        self.up = Linear(d_model, d_ff, up_axes, bias=bias, keys=keys)
        self.down = Linear(d_ff, d_model, down_axes, bias=bias, keys=keys)

    def __call__(self, x_BxLxD: jax.Array, dropout_Bx1xF: jax.Array | None = None) -> jax.Array:
        """Apply the MLP: BxLxD. The dropout mask multiplies the hidden units (T5)."""
        activate = ACTIVATIONS[self.activation]
        up_BxLxF = self.up(x_BxLxD)
        if self.gate is None:
            h_BxLxF = activate(up_BxLxF)
        else:
            h_BxLxF = activate(self.gate(x_BxLxD)) * up_BxLxF
        h_BxLxF = rules.constrain(h_BxLxF, "batch", "length", "mlp_act")
        return self.down(apply_dropout(h_BxLxF, dropout_Bx1xF))
