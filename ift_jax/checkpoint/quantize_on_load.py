"""Quantizing the weights of a run while they are read.

A stack of layers is on the devices in float32 only until it is quantized, so a model fits whose
float32 weights would not.
"""

import jax
from jax.sharding import Mesh

from ift_jax.interop.hugging_face_weights import Convert, keep_as_it_is
from ift_jax.interop.tensor_table import leaves
from ift_jax.models.model import Model
from ift_jax.models.quantization import QuantizedWeight, quantize
from ift_jax.models.quantized_params import SCALES, VALUES
from ift_jax.sharding import rules


def quantizing(model: Model, mesh: Mesh) -> Convert:
    """What becomes of the parameters of a run's base model while they are read.

    Args:
        model: The model with its adapters (`trained_model`).
        mesh: The mesh that parameters are sharded over.
    """
    kind = model.lora.quantize
    if kind == "none":
        return keep_as_it_is
    shardings = dict(leaves(rules.tree_shardings(mesh, model.logical_axes, model.shapes)))

    def convert(path: str, array: jax.Array) -> dict[str, jax.Array]:
        module = path.rpartition(".")[0]
        paths = (f"{module}.{VALUES}", f"{module}.{SCALES}")
        if path in shardings or paths[0] not in shardings:
            return {path: array}
        out_shardings = QuantizedWeight(*(shardings[path] for path in paths))
        quantized = jax.jit(quantize, static_argnums=1, out_shardings=out_shardings)(array, kind)
        return dict(zip(paths, quantized, strict=True))

    return convert
