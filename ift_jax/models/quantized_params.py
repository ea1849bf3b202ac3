"""Which weights of a model are quantized, and where they are among its parameters.

The projections of the layers are. Embedding, head, norms, and biases stay as they are. Where a
parameter "weight" was, there are two: "weight_values" and "weight_scales"
(`ift_jax.models.quantization`).
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx, traverse_util

from ift_jax.errors import UserError
from ift_jax.models.experts import ExpertLinear
from ift_jax.models.layers import Linear
from ift_jax.models.quantization import QuantizedWeight, block_size, dequantize

WEIGHT, VALUES, SCALES = "weight", "weight_values", "weight_scales"
Path = tuple[Any, ...]


def quantize_projections(module: Any, kind: str) -> None:
    """Quantize the weight of every projection of a module that may have stacked layers.

    Raises:
        UserError: The model has experts, or a projection of an odd number of inputs.
    """
    for path, node in list(nnx.iter_graph(module)):
        if not isinstance(node, Linear | ExpertLinear):
            continue
        name = ".".join(map(str, path))
        if isinstance(node, ExpertLinear):
            raise UserError(
                f"config.lora.quantize: {kind!r}, but the weights of experts ({name}) cannot be "
                "quantized; expected 'none'"
            )
        n_inputs = node.weight[...].shape[-2]
        if block_size(n_inputs) == 1:
            raise UserError(
                f"config.lora.quantize: {kind!r} needs blocks of inputs, and {name} has an odd "
                f"number of them ({n_inputs}); expected 'none'"
            )
        node.quantize_weight(kind)


def put_quantized(flat: dict[Path, Any], path: Path, weight: QuantizedWeight) -> None:
    """Put a quantized weight into flat parameters, in place of the one of this path."""
    flat.pop(path, None)
    flat[*path[:-1], VALUES] = weight.values
    flat[*path[:-1], SCALES] = weight.scales


def get_weight(flat: dict[Path, Any], module: Path, dtype: Any) -> Any:
    """The weight of a projection among flat parameters, dequantized in `dtype` if need be."""
    if (*module, WEIGHT) in flat:
        return flat[*module, WEIGHT]
    return dequantize(QuantizedWeight(flat[*module, VALUES], flat[*module, SCALES]), dtype)


def dequantize_params(params: Any) -> Any:
    """The parameters with all quantized weights as float32 numbers."""
    flat = traverse_util.flatten_dict(params)
    for path in [path for path in flat if path[-1] == VALUES]:
        module = path[:-1]
        flat[*module, WEIGHT] = get_weight(flat, module, jnp.float32)
        del flat[path], flat[*module, SCALES]
    return traverse_util.unflatten_dict(flat)
