"""The layers that both architectures share, and how a stack of them is run.

Shape suffixes: B rows, L positions, D model width, F hidden units of the MLP, V vocabulary.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from ift_jax.sharding import rules
from ift_jax.sharding.fsdp import by_device, flat_matmul, gather, in_lines, scatter

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
}
LAYER_INPUT, ATTENTION = "layer_input", "attention"  # Names of values, for the policies below.
_policies = jax.checkpoint_policies
_dots = _policies.dots_with_no_batch_dims_saveable
_attention = _policies.save_only_these_names(ATTENTION)
# What is kept of a layer for the backward pass, from most to least; "none" keeps everything.
REMAT: dict[str, Any] = {
    "minimal": _policies.save_from_both_policies(_dots, _attention),  # Both of the next two.
    "dots": _dots,  # The outputs of the projections: products without a batch axis.
    "save_attention": _attention,  # What attention returns, before its output projection.
    "full": None,  # The layer's input, as all the others do.
    "offload": _policies.save_and_offload_only_these_names(  # The same, in the host's memory.
        names_which_can_be_saved=[], names_which_can_be_offloaded=[LAYER_INPUT],
        offload_src="device", offload_dst="pinned_host",
    ),
}  # fmt: skip
TABLE = ("vocab", "embed")  # The axes of an embedding.
# Each weight takes the next key. Split once for a whole module: `nnx.Rngs` folds for each weight,
# which doubles the time that the initialisation takes to compile.
Keys = Iterator[jax.Array]
MAX_WEIGHTS = 16  # Of a layer, or of a model outside its layers.


def weight(keys: Keys, sizes: tuple[int, int], axes: tuple[str | None, ...], std: float) -> Any:
    """A parameter: normal of deviation `std` cut at two of its own deviations, float32."""
    # 0.8796 is the deviation of a unit normal that is cut at +-2.
    values = jax.random.truncated_normal(next(keys), -2.0, 2.0, sizes) * (std / 0.87962566)
    return nnx.Param(values, axes=axes)


class Linear(nnx.Module):
    """`x @ weight (+ bias)`; the weight is (d_in, d_out) with the two logical axes given."""

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
        self.axes = axes
        self.weight = weight(keys, (d_in, d_out), axes, d_in**-0.5 if std is None else std)
        self.bias = nnx.Param(jnp.zeros((d_out,)), axes=axes[1:]) if bias else None
        self.lora_a: Any = nnx.data(None)  # `ift_jax.models.lora` attaches them.
        self.lora_b: Any = nnx.data(None)
        self.lora_scale = 0.0

    def __call__(self, x: jax.Array) -> jax.Array:
        y = flat_matmul(x, self.weight[...], x.dtype, self.axes)
        if self.lora_a is not None:
            h = flat_matmul(x, self.lora_a[...], x.dtype)
            y += self.lora_scale * flat_matmul(h, self.lora_b[...], x.dtype)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)


class RMSNorm(nnx.Module):
    """`x / rms(x) * (scale + offset)` over the last axis, in float32, returned in x's dtype.

    Zhang and Sennrich 2019 (arXiv:1910.07467). Starts as a plain normalisation.
    """

    def __init__(self, size: int, eps: float, offset: float = 0.0):
        self.scale = nnx.Param(jnp.full((size,), 1.0 - offset), axes=("norm",))
        self.eps, self.offset = eps, offset

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + self.eps)
        return (y * (self.scale[...] + self.offset)).astype(x.dtype)


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
        up_axes, down_axes = ("embed", "mlp"), ("mlp", "embed")
        self.gate = Linear(d_model, d_ff, up_axes, bias=bias, keys=keys) if gated else None
        self.up = Linear(d_model, d_ff, up_axes, bias=bias, keys=keys)
        self.down = Linear(d_ff, d_model, down_axes, bias=bias, keys=keys)

    def __call__(self, x_BxLxD: jax.Array, dropout_Bx1xF: jax.Array | None = None) -> jax.Array:
        """Applies the MLP; the mask multiplies the hidden units (T5's dropout)."""
        activate = ACTIVATIONS[self.activation]
        h_BxLxF = self.up(x_BxLxD)
        h_BxLxF = activate(h_BxLxF) if self.gate is None else activate(self.gate(x_BxLxD)) * h_BxLxF
        h_BxLxF = rules.constrain(h_BxLxF, "batch", "length", "mlp_act")
        return self.down(drop(h_BxLxF, dropout_Bx1xF))


def embed(table_VxD: jax.Array, tokens_BxL: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """The rows of the table for the tokens, in `dtype`; ids are trusted to be below V."""
    if in_lines(TABLE, table_VxD.shape) and rules.batch_shards(len(tokens_BxL)):
        return _fsdp_embed(table_VxD, tokens_BxL, dtype)
    # Gathered over the width first: the lookup then comes out cut by rows, as it is wanted.
    return _look_up(gather(table_VxD, TABLE), tokens_BxL, dtype)


def _look_up(table_VxD: jax.Array, tokens_BxL: jax.Array, dtype: jnp.dtype) -> jax.Array:
    x_BxLxD = jnp.take(table_VxD, tokens_BxL, axis=0, mode="clip").astype(dtype)
    return rules.constrain(x_BxLxD, "batch", "length", "embed_act")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _fsdp_embed(table_VxD: jax.Array, tokens_BxL: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """`embed`, whose gradient each device adds up for itself before it is summed and cut."""
    return _look_up(gather(table_VxD.astype(dtype), TABLE), tokens_BxL, dtype)


def _embed_forward(table: Any, tokens: Any, dtype: jnp.dtype) -> tuple[jax.Array, Any]:
    kept = (table.value[:, :0], tokens.value) if table.perturbed else None
    return _fsdp_embed(table.value, tokens.value, dtype), kept


def _embed_backward(dtype: jnp.dtype, kept: Any, dx_BxLxD: jax.Array) -> tuple[Any, None]:
    if kept is None:
        return None, None
    like_Vx0, tokens_BxL = kept
    zeros_VxD = jnp.zeros((len(like_Vx0), dx_BxLxD.shape[-1]), jnp.float32)
    add = jax.vmap(lambda tokens, dx: zeros_VxD.at[tokens].add(dx.astype(jnp.float32)))
    parts_GxVxD = add(by_device(tokens_BxL), by_device(dx_BxLxD))
    parts_GxVxD = rules.constrain(parts_GxVxD, "batch", "vocab", None)
    return scatter(parts_GxVxD, TABLE).astype(like_Vx0.dtype), None


_fsdp_embed.defvjp(_embed_forward, _embed_backward, symbolic_zeros=True)


def row_keys(
    dropout_key: jax.Array | None, batch: dict[str, jax.Array], rate: float
) -> jax.Array | None:
    """One dropout key a row, from `row_ids`, its number in the global batch; None: no dropout.

    A row's masks then depend on (key, row number) alone: not on how the batch is cut into
    microbatches or over devices.
    """
    if dropout_key is None or rate == 0.0:
        return None
    return jax.vmap(lambda row: jax.random.fold_in(dropout_key, row))(batch["row_ids"])


def fold(keys_B: jax.Array | None, number: int | jax.Array) -> jax.Array | None:
    """The rows' keys for one layer or stack."""
    fold_key = lambda key: jax.random.fold_in(key, number)  # noqa: E731
    return None if keys_B is None else jax.vmap(fold_key)(keys_B)


def dropout_masks(
    keys_B: jax.Array | None, rate: float | jax.Array, *shapes: tuple[int, ...]
) -> list[jax.Array | None]:
    """A mask (B, *shape) of each shape: 0 with probability `rate`, else 1 / (1 - rate).

    All are cut from one draw, since each draw adds to the time that a step takes to compile.
    Without keys every mask is None.
    """
    if keys_B is None:
        return [None] * len(shapes)
    sizes = [math.prod(shape) for shape in shapes]
    draw = lambda key: jax.random.bernoulli(key, 1.0 - rate, (sum(sizes),))  # noqa: E731
    parts = jnp.split(jax.vmap(draw)(keys_B) / (1.0 - rate), np.cumsum(sizes)[:-1], axis=1)
    rows = keys_B.shape[0]
    return [part.reshape(rows, *shape) for part, shape in zip(parts, shapes, strict=True)]


def drop(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """`x` times a mask of dropout, if there is one."""
    return x if mask is None else x * mask.astype(x.dtype)


def stack_layers(make: Callable[[Keys], Any], n: int, keys: Keys, stacked: bool) -> Any:
    """Makes n layers: one module whose parameters have a leading axis, or a list of n modules."""
    of_layers = jax.random.split(next(keys), (n, MAX_WEIGHTS))
    if stacked:
        return nnx.vmap(lambda of_layer: make(iter(of_layer)))(of_layers)
    return nnx.List([make(iter(of_layers[i])) for i in range(n)])


def run_layers(
    layers: Any,
    x_BxLxD: jax.Array,
    call: Callable[[Any, jax.Array, Any], jax.Array],
    each: Any,
    remat: str,
) -> jax.Array:
    """`x = call(layer, x, each[i])` for every layer of `stack_layers`.

    Stacked layers are scanned, so compile time does not grow with depth; a list is unrolled.
    `each` is a tree of arrays with a leading axis of layers. Of a scanned layer, the backward pass
    computes again what is not kept by the policy `remat` of `REMAT`.
    """
    if isinstance(layers, nnx.List):
        for i, layer in enumerate(layers):
            x_BxLxD = call(layer, x_BxLxD, jax.tree.map(lambda leaf, i=i: leaf[i], each))
        return x_BxLxD
    graphdef, params = nnx.split(layers)

    def body(x: jax.Array, of_layer: Any) -> tuple[jax.Array, None]:
        layer_params, layer_each = of_layer
        x = checkpoint_name(x, LAYER_INPUT)
        return call(nnx.merge(graphdef, layer_params), x, layer_each), None

    if remat != "none":
        # Inside a scan the compiler cannot merge the two computations, so no barrier is needed.
        body = jax.checkpoint(body, policy=REMAT[remat], prevent_cse=False)
    return jax.lax.scan(body, x_BxLxD, (params, each))[0]
