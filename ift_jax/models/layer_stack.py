"""A stack of equal layers: how it is made, and how it is run.

For training, all layers are one module whose parameters have a leading axis of layers, and
`jax.lax.scan` runs it, so that compile time does not grow with depth. For decoding, which reads
every weight for every token, they are a list of modules.
"""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from ift_jax.models.layers import MAX_WEIGHTS, Keys
from ift_jax.models.remat import CHECKPOINT_POLICIES, LAYER_INPUT


def stack_layers(
    make_layer: Callable[[Keys], Any], n_layers: int, keys: Keys, stacked: bool
) -> Any:
    """Make `n_layers` layers.

    Args:
        make_layer: Makes one layer from its random keys.
        n_layers: How many.
        keys: The next one is split for the layers.
        stacked: Whether to return one module whose parameters have a leading axis of layers, or an
            `nnx.List` of modules.
    """
    layer_keys = jax.random.split(next(keys), (n_layers, MAX_WEIGHTS))
    if stacked:
        return nnx.vmap(lambda keys_of_layer: make_layer(iter(keys_of_layer)))(layer_keys)
    return nnx.List([make_layer(iter(layer_keys[i])) for i in range(n_layers)])


def run_layers(
    layers: Any,
    x_BxLxD: jax.Array,
    call: Callable[[Any, jax.Array, Any], jax.Array],
    per_layer: Any,
    remat: str,
) -> jax.Array:
    """Compute `x = call(layer, x, per_layer[i])` for every layer i.

    Args:
        layers: What `stack_layers` returned: stacked layers are scanned, a list is unrolled.
        x_BxLxD: The input of the first layer.
        call: Applies one layer.
        per_layer: What differs from layer to layer: a tree of arrays with a leading axis of layers.
        remat: "none", or the name of the policy (`CHECKPOINT_POLICIES`) that says what a scanned
            layer keeps for the backward pass.
    """
    if isinstance(layers, nnx.List):
        for i, layer in enumerate(layers):
            of_layer = jax.tree.map(lambda leaf, i=i: leaf[i], per_layer)
            x_BxLxD = call(layer, x_BxLxD, of_layer)
        return x_BxLxD
    graphdef, params = nnx.split(layers)

    def body(x: jax.Array, params_and_rest: Any) -> tuple[jax.Array, None]:
        layer_params, of_layer = params_and_rest
        x = checkpoint_name(x, LAYER_INPUT)
        return call(nnx.merge(graphdef, layer_params), x, of_layer), None

    if remat != "none":
        # Inside a scan the compiler cannot merge the two computations, so no barrier is needed.
        body = jax.checkpoint(body, policy=CHECKPOINT_POLICIES[remat], prevent_cse=False)
    return jax.lax.scan(body, x_BxLxD, (params, per_layer))[0]
