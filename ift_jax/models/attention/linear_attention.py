"""Linear attention as in Qwen3.5: a short convolution, the gated delta rule, and a gated norm.

Shape suffixes: B rows, L positions, D model width, T tokens that the convolution sees, E channels
of the convolution (all queries, keys and values), G key heads, R value heads of each, H = G * R,
K width of a key, V width of a value.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from ift_jax.config.schema import DecoderConfig
from ift_jax.models.attention.gated_delta import DeltaInputs, gated_delta_rule, gated_delta_step
from ift_jax.models.attention.kv import LinearState
from ift_jax.models.layers import ACTIVATIONS, Keys, Linear, RMSNorm
from ift_jax.models.remat import ATTENTION_OUTPUT
from ift_jax.sharding import rules
from ift_jax.sharding.local import Axes, Sharded, call_on_shards

STATE_AXES: Axes = ("batch", "heads_act", None, None, None)
_INPUT_AXES: tuple[Axes, ...] = (  # As the fields of DeltaInputs.
    ("batch", None, "heads_act", None),
    ("batch", None, "heads_act", None),
    ("batch", None, "heads_act", None, None),
    ("batch", None, "heads_act", None),
    ("batch", None, "heads_act", None),
    ("batch", None),
)
_LENGTH_EPS = 1e-6  # Added to the squared lengths of queries and keys.


class LinearAttention(nnx.Module):
    """The mixer of a layer with linear attention."""

    def __init__(self, config: DecoderConfig, *, keys: Keys):
        c = config
        self.config = config
        n_values = c.linear_value_heads * c.linear_value_dim
        n_channels = 2 * c.linear_key_heads * c.linear_key_dim + n_values
        in_axes = ("embed", "heads")
        self.qkv = Linear(c.d_model, n_channels, in_axes, keys=keys)
        self.gate = Linear(c.d_model, n_values, in_axes, keys=keys)
        self.beta = Linear(c.d_model, c.linear_value_heads, in_axes, keys=keys)
        self.decay = Linear(c.d_model, c.linear_value_heads, in_axes, keys=keys)
        self.out = Linear(n_values, c.d_model, ("heads", "embed"), keys=keys)
        self.norm = RMSNorm(c.linear_value_dim, c.norm_eps)
        # Torch's default: uniform within 1 / sqrt(T).
        conv = jax.random.uniform(next(keys), (c.linear_conv, n_channels), minval=-1.0)
        self.conv = nnx.Param(conv * c.linear_conv**-0.5, axes=("conv", "heads"))
        heads = (c.linear_value_heads,)
        rates = jax.random.uniform(next(keys), heads, minval=0.01, maxval=16.0)
        self.a_log = nnx.Param(jnp.log(rates), axes=("heads",))
        self.dt_bias = nnx.Param(jnp.ones(heads), axes=("heads",))

    def __call__(
        self, x_BxLxD: jax.Array, segment_ids_BxL: jax.Array, state: LinearState | None = None
    ) -> tuple[jax.Array, LinearState]:
        """Apply the layer: BxLxD, and its state after the last token that is no padding.

        Args:
            x_BxLxD: Normalized hidden states.
            segment_ids_BxL: int32; the example of each token, 0: padding.
            state: What the tokens of segment 1 continue; None: every example starts here.
        """
        c = self.config
        channels_BxLxE = self.qkv(x_BxLxD)
        before_BxTxE = None if state is None else state.channels_BxTxE
        segments = segment_ids_BxL
        convolve = jax.checkpoint(functools.partial(_convolve, ACTIVATIONS[c.activation]))
        mixed_BxLxE, last_channels = convolve(
            self.conv[...], channels_BxLxE, segments, before_BxTxE
        )
        log_decay = jax.nn.softplus(self.decay(x_BxLxD).astype(jnp.float32) + self.dt_bias[...])
        log_decay *= -jnp.exp(self.a_log[...])
        G, R = c.linear_key_heads, c.linear_value_heads // c.linear_key_heads
        sizes = [G * c.linear_key_dim, 2 * G * c.linear_key_dim]
        q, k, v = jnp.split(mixed_BxLxE, sizes, axis=-1)

        def split_heads(x: jax.Array, *heads: int) -> jax.Array:
            return x.reshape(*x.shape[:2], *heads)

        inputs = DeltaInputs(
            _unit(split_heads(q, G, -1)) * c.linear_key_dim**-0.5,
            _unit(split_heads(k, G, -1)),
            split_heads(v, G, R, -1),
            split_heads(log_decay, G, R),
            split_heads(jax.nn.sigmoid(self.beta(x_BxLxD)), G, R),
            segments,
        )
        y_BxLxGxRxV, new_state = _apply_rule(inputs, state and state.state_BxGxRxKxV)
        y_BxLxGxRxV = self.norm(y_BxLxGxRxV)
        gate = split_heads(self.gate(x_BxLxD), G, R, -1)
        y_BxLxGxRxV = y_BxLxGxRxV * jax.nn.silu(gate.astype(jnp.float32))
        y_BxLxH = y_BxLxGxRxV.astype(x_BxLxD.dtype).reshape(*segments.shape, -1)
        y_BxLxH = checkpoint_name(y_BxLxH, ATTENTION_OUTPUT)
        y_BxLxH = rules.constrain(y_BxLxH, "batch", "length", "heads_act")
        return self.out(y_BxLxH), LinearState(last_channels, new_state)


def empty_state(config: DecoderConfig) -> LinearState:
    """The state of one row before its first token."""
    c = config
    G, K, V = c.linear_key_heads, c.linear_key_dim, c.linear_value_dim
    n_channels = 2 * G * K + c.linear_value_heads * V
    return LinearState(
        jnp.zeros((1, c.linear_conv - 1, n_channels), jnp.dtype(c.dtype)),
        jnp.zeros((1, G, c.linear_value_heads // G, K, V), jnp.float32),
    )


def _unit(x: jax.Array) -> jax.Array:
    """Vectors along the last axis, scaled to length 1, float32."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.square(x).sum(axis=-1, keepdims=True) + _LENGTH_EPS)


def _convolve(
    activate: Callable[[jax.Array], jax.Array],
    w_TxE: jax.Array,
    x_BxLxE: jax.Array,
    segment_ids_BxL: jax.Array,
    before_BxTxE: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """Mix each channel with its last T - 1 values of the same segment, and activate it.

    Args:
        activate: The activation.
        w_TxE: The weights, those of the token itself last.
        x_BxLxE: The channels.
        segment_ids_BxL: int32; the example of each token, 0: padding, which follows the tokens if
            the result is continued.
        before_BxTxE: The T - 1 values before these, of segment 1; None: there are none.

    Returns:
        BxLxE, and the last T - 1 values of tokens, BxTxE.
    """
    L = segment_ids_BxL.shape[1]
    n_before = len(w_TxE) - 1
    if before_BxTxE is None:
        x = jnp.pad(x_BxLxE, ((0, 0), (n_before, 0), (0, 0)))
        segments = jnp.pad(segment_ids_BxL, ((0, 0), (n_before, 0)))  # Nobody's.
    else:
        x = jnp.concatenate([before_BxTxE, x_BxLxE], axis=1)
        segments = jnp.pad(segment_ids_BxL, ((0, 0), (n_before, 0)), constant_values=1)
    y = jnp.zeros(x_BxLxE.shape, jnp.float32)
    for i in range(n_before + 1):
        same_BxL = segments[:, i : i + L] == segment_ids_BxL
        y += jnp.where(same_BxL[..., None], x[:, i : i + L] * w_TxE[i], 0.0)
    n_tokens_B = (segment_ids_BxL > 0).sum(axis=1)
    last_BxT = n_tokens_B[:, None] + jnp.arange(n_before)
    last_BxTxE = jnp.take_along_axis(x, last_BxT[..., None], axis=1)
    return activate(y).astype(x_BxLxE.dtype), last_BxTxE


def _apply_rule(inputs: DeltaInputs, state: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Apply the gated delta rule, on each device to its rows and heads."""

    def apply(*parts: Any) -> tuple[jax.Array, jax.Array]:
        *of_inputs, of_state = parts
        of_shard = DeltaInputs(*of_inputs)
        if of_state is not None and of_shard.segment_ids_BxL.shape[1] == 1:
            return gated_delta_step(of_shard, of_state)
        return gated_delta_rule(of_shard, of_state)

    arguments = [Sharded(axes, part) for axes, part in zip(_INPUT_AXES, inputs, strict=True)]
    result: tuple[jax.Array, jax.Array] = call_on_shards(
        apply, [*arguments, Sharded(STATE_AXES, state)], [_INPUT_AXES[2], STATE_AXES]
    )
    return result
