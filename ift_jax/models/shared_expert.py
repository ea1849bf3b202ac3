"""An expert that all tokens share, beside those that a router chooses (Qwen2-MoE, Qwen3-Next).

Shape suffixes: B rows, L positions, D model width.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from ift_jax.config.schema import DecoderConfig
from ift_jax.models.experts import Router
from ift_jax.models.layers import MLP, Keys


class SharedExpert(nnx.Module):
    """`sigmoid(x @ gate) * mlp(x)`; the gate is one number for each token, in float32."""

    def __init__(self, config: DecoderConfig, *, keys: Keys):
        c = config
        self.mlp = MLP(c.d_model, c.shared_d_ff, c.activation, keys=keys)
        # Like a router's weight it is too small to be sharded, and gets no adapter.
        self.gate = Router(c.d_model, 1, keys=keys, bias=False)

    def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
        """Apply it: BxLxD."""
        x = x_BxLxD.astype(jnp.float32)
        logits_BxLx1 = jnp.matmul(x, self.gate.weight[...], precision="highest")
        return self.mlp(x_BxLxD) * jax.nn.sigmoid(logits_BxLx1).astype(x_BxLxD.dtype)
