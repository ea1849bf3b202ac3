"""xIELU, an activation whose curvature each layer learns (Apertus)."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

_BETA = 0.5
_EPS = -1e-6
_ALPHA = 0.8  # Both sides' at first.


class XIELU(nnx.Module):
    """The integral of a trainable ELU, with slope beta at 0.

    Huang and Schlag 2024 (arXiv:2411.13010). Above 0 it is alpha_p x^2 + beta x, below
    alpha_n (e^x - 1 - x) + beta x. The logarithms of e^alpha_p - 1 and e^(alpha_n - beta) - 1 are
    trained, so that alpha_p is above 0, and alpha_n above beta. Releases hold beta and eps beside
    them, so models keep both, but they are not trained.
    """

    def __init__(self) -> None:
        alpha_p, alpha_n = math.log(math.expm1(_ALPHA)), math.log(math.expm1(_ALPHA - _BETA))
        self.alpha_p = nnx.Param(jnp.full((1,), alpha_p), axes=("norm",))
        self.alpha_n = nnx.Param(jnp.full((1,), alpha_n), axes=("norm",))
        self.beta = nnx.Param(jnp.full((1,), _BETA), axes=("constant",))
        self.eps = nnx.Param(jnp.full((1,), _EPS), axes=("constant",))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply it elementwise, in float32; returned in x's dtype."""
        beta, eps = map(jax.lax.stop_gradient, (self.beta[...], self.eps[...]))
        y = x.astype(jnp.float32)
        above = jax.nn.softplus(self.alpha_p[...]) * y * y
        # Near 0 e^y - 1 - y is lost to rounding, and so is what eps leaves out of it.
        below = (beta + jax.nn.softplus(self.alpha_n[...])) * (jnp.expm1(jnp.minimum(y, eps)) - y)
        return (jnp.where(y > 0, above, below) + beta * y).astype(x.dtype)
