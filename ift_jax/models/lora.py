"""LoRA: low-rank adapters beside frozen projections (Hu et al. 2021, arXiv:2106.09685).

A projection W (d_in x d_out) becomes W + s A B with A (d_in x r) random and B (r x d_out) zero at
first. s is alpha / r, or alpha / sqrt(r) with rsLoRA (Kalajdzievski 2023, arXiv:2312.03732).
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

NAMES = ("lora_a", "lora_b")


def scale(config: LoraConfig) -> float:
    """What multiplies the adapters' product."""
    return config.alpha / (config.rank**0.5 if config.rslora else config.rank)


def attach(module: Any, config: LoraConfig, key: jax.Array) -> None:
    """Gives each projection of `module` whose path the targets match its adapters.

    A is uniform within 1 / sqrt(d_in), as `peft` starts. Each depends on (key, path) alone, so
    that adapters change no other parameter's start.

    Raises:
        UserError: the targets match no projection.
    """
    n_found = 0
    for path, node in list(nnx.iter_graph(module)):
        name = ".".join(map(str, path))
        if not isinstance(node, Linear) or not re.search(config.targets, name):
            continue
        kernel, (d_in_axis, d_out_axis) = node.weight[...], node.weight.get_metadata()["axes"]
        *layers, d_in, d_out = kernel.shape
        own = jax.random.fold_in(key, zlib.crc32(name.encode()))
        a = jax.random.uniform(own, (*layers, d_in, config.rank), minval=-1.0) * d_in**-0.5
        node.lora_a = nnx.Param(a, axes=(d_in_axis, "lora"))
        node.lora_b = nnx.Param(jnp.zeros((*layers, config.rank, d_out)), axes=("lora", d_out_axis))
        node.lora_scale = scale(config)
        n_found += 1
    if not n_found:
        raise UserError(
            f"config.lora.targets: {config.targets!r} matches no projection; there are "
            "attention.query, .key, .value, .out, mlp.gate, .up and .down"
        )


def merge(params: Any, config: LoraConfig) -> Any:
    """The same function without adapters: each W + s A B, in float32."""
    flat = traverse_util.flatten_dict(params)
    merged = {path: leaf for path, leaf in flat.items() if path[-1] not in NAMES}
    for (*module, kind), a in flat.items():
        if kind == "lora_a":
            at = (*module, "weight")
            merged[at] = merged[at].astype(jnp.float32) + scale(config) * jnp.matmul(
                a, flat[*module, "lora_b"], precision="highest"
            )
    return traverse_util.unflatten_dict(merged)
