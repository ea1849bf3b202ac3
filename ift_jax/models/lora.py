"""LoRA: low-rank adapters beside frozen projections (Hu et al. 2021, arXiv:2106.09685).

A projection W (d_in x d_out) becomes W + s A B, where A (d_in x r) starts random and B (r x d_out)
starts at zero. s is alpha / r, or alpha / sqrt(r) with rsLoRA (Kalajdzievski 2023,
arXiv:2312.03732).
"""

import re
import zlib
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx, traverse_util

from ift_jax.config.schema import LoraConfig
from ift_jax.errors import UserError
from ift_jax.models.layers import Linear

ADAPTER_NAMES = ("lora_a", "lora_b")


def scale(config: LoraConfig) -> float:
    """The factor s of the product A B."""
    return config.alpha / (config.rank**0.5 if config.rslora else config.rank)


def attach(module: Any, config: LoraConfig, key: jax.Array) -> None:
    """Add adapters to each projection of `module` whose path matches the config's `targets`.

    A is uniform within 1 / sqrt(d_in), as in `peft`. Each adapter depends on (key, path) alone, so
    that adapters do not change the start of any other parameter.

    Raises:
        UserError: The targets match no projection.
    """
    n_found = 0
    for path, node in list(nnx.iter_graph(module)):
        name = ".".join(map(str, path))
        if isinstance(node, Linear) and re.search(config.targets, name):
            _attach_to(node, config, jax.random.fold_in(key, zlib.crc32(name.encode())))
            n_found += 1
    if not n_found:
        raise UserError(
            f"config.lora.targets: {config.targets!r} matches no projection; there are "
            "attention.query, .key, .value, .out, mlp.gate, .up and .down"
        )


def _attach_to(linear: Linear, config: LoraConfig, key: jax.Array) -> None:
    d_in_axis, d_out_axis = linear.weight.get_metadata()["axes"]
    *layers, d_in, d_out = linear.weight[...].shape  # Stacked layers have a leading axis.
    a = jax.random.uniform(key, (*layers, d_in, config.rank), minval=-1.0) * d_in**-0.5
    b = jnp.zeros((*layers, config.rank, d_out))
    linear.lora_a = nnx.Param(a, axes=(d_in_axis, "lora"))
    linear.lora_b = nnx.Param(b, axes=("lora", d_out_axis))
    linear.lora_scale = scale(config)


def merge(params: Any, config: LoraConfig) -> Any:
    """Return the parameters of the same function without adapters: W + s A B, in float32."""
    flat = traverse_util.flatten_dict(params)
    merged = {path: leaf for path, leaf in flat.items() if path[-1] not in ADAPTER_NAMES}
    for (*module, name), a in flat.items():
        if name != "lora_a":
            continue
        path = (*module, "weight")
        product = jnp.matmul(a, flat[*module, "lora_b"], precision="highest")
        merged[path] = merged[path].astype(jnp.float32) + scale(config) * product
    return traverse_util.unflatten_dict(merged)
