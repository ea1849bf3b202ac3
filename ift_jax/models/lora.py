"""LoRA: low-rank adapters beside frozen projections (Hu et al. 2021, arXiv:2106.09685).

A projection W (d_in x d_out) becomes W + s A B, where A (d_in x r) starts random and B (r x d_out)
starts at zero. s is alpha / r, or alpha / sqrt(r) with rsLoRA (Kalajdzievski 2023,
arXiv:2312.03732). With DoRA (Liu et al. 2024, arXiv:2402.09353) each column of W + s A B is divided
by its norm, which gets no gradient, and multiplied by a trained magnitude, which starts as the norm
of W's column.
"""

import functools
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx, traverse_util

from ift_jax.config.schema import LoraConfig
from ift_jax.errors import UserError
from ift_jax.models.column_norms import column_norms
from ift_jax.models.dropout import dropout_row_keys, fold_keys
from ift_jax.models.experts import ExpertLinear
from ift_jax.models.layers import Linear
from ift_jax.models.quantized_params import dequantize_params, get_weight

MAGNITUDE = "lora_magnitude"
ADAPTER_NAMES = ("lora_a", "lora_b", MAGNITUDE)


def attach(module: Any, config: LoraConfig, key: jax.Array) -> None:
    """Add adapters to each projection of `module` whose path matches the config's `targets`.

    A is uniform within 1 / sqrt(d_in), as in `peft`. Each adapter depends on (key, path) alone, so
    that adapters do not change the start of any other parameter. Magnitudes are zeros until
    `with_magnitudes` gives them those of the weights.

    Raises:
        UserError: The targets match no projection, a pattern matches none of the targets or none
            that an earlier one leaves it, or experts would get an adapter of a kind that they
            cannot have.
    """
    found, others = [], []
    for name, node in _projections(module):
        if not re.search(config.targets, name):
            others.append(name)
            continue
        if isinstance(node, ExpertLinear):
            _check_experts(name, config)
        _attach_to(node, name, config, jax.random.fold_in(key, _number(name)))
        found.append(name)
    if not found:
        raise UserError(
            f"config.lora.targets: {config.targets!r} matches no projection; there are "
            f"{', '.join(others)}"
        )
    for field in ("rank_pattern", "alpha_pattern"):
        _check_patterns(field, getattr(config, field), found)


def _check_patterns(field: str, texts: Sequence[str], names: Sequence[str]) -> None:
    """Raise a UserError if a pattern counts for none of the projections with an adapter."""
    counts = dict.fromkeys(names, "")  # The pattern that counts for each projection.
    for text in texts:
        pattern = text.rpartition("=")[0]
        matches = [name for name in names if re.search(pattern, name)]
        if not matches:
            raise UserError(
                f"config.lora.{field}: {pattern!r} matches no projection with an adapter; "
                f"expected a pattern of one of {', '.join(sorted(names))}"
            )
        earlier = [counts[name] for name in matches]
        if all(earlier):
            shadows = ", ".join(map(repr, dict.fromkeys(earlier)))
            raise UserError(
                f"config.lora.{field}: {text!r} never counts, because the first pattern that "
                f"matches a projection does; put it before {shadows}, or leave it out"
            )
        counts |= {name: text for name in matches if not counts[name]}


def _projections(module: Any) -> Iterator[tuple[str, Linear | ExpertLinear]]:
    """The projections of a module, each with its path."""
    for path, node in list(nnx.iter_graph(module)):
        if isinstance(node, Linear | ExpertLinear):
            yield ".".join(map(str, path)), node


def _number(name: str) -> int:
    return zlib.crc32(name.encode())


def _check_experts(name: str, config: LoraConfig) -> None:
    """Raise a UserError if an adapter of experts is not as plain as theirs must be."""
    cure = "leave the experts out with lora.targets=attention"
    for field in ("dropout", "dora"):
        if getattr(config, field):
            raise UserError(
                f"config.lora.{field}: {getattr(config, field)}, which the adapters of experts "
                f"({name}) do not have; {cure}"
            )
    for field, value, everywhere in (
        ("rank_pattern", config.rank_of(name), config.rank),
        ("alpha_pattern", config.alpha_of(name), config.alpha),
    ):
        if value != everywhere:
            raise UserError(
                f"config.lora.{field}: {value:g} for {name}, but all experts' adapters are alike "
                f"({everywhere:g}); expected a pattern that does not match them, or {cure}"
            )


def _attach_to(
    linear: Linear | ExpertLinear, name: str, config: LoraConfig, key: jax.Array
) -> None:
    *expert_axis, d_in_axis, d_out_axis = linear.weight.get_metadata()["axes"]
    *stack, d_in, d_out = linear.weight[...].shape  # Leading axes of layers, and of experts.
    rank = config.rank_of(name)
    a = jax.random.uniform(key, (*stack, d_in, rank), minval=-1.0) * d_in**-0.5
    b = jnp.zeros((*stack, rank, d_out))
    linear.lora_a = nnx.Param(a, axes=(*expert_axis, d_in_axis, "lora"))
    linear.lora_b = nnx.Param(b, axes=(*expert_axis, "lora", d_out_axis))
    linear.lora_scale = config.scale_of(name)
    if isinstance(linear, Linear):
        linear.lora_dropout = config.dropout
        if config.dora:
            magnitude = jnp.zeros((*stack, d_out))
            linear.lora_magnitude = nnx.Param(magnitude, axes=(d_out_axis,))


def give_dropout_keys(
    module: Any, config: LoraConfig, dropout_key: jax.Array, batch: dict[str, jax.Array]
) -> None:
    """Give each adapter of a traced module its own key for each row, as `drop_elements` reads it.

    They depend on the row's number in the global batch, the projection and its layer alone. Of
    stacked layers they have an axis of layers in front, and so are scanned like parameters.
    """
    keys_B = dropout_row_keys(dropout_key, batch, config.dropout)

    def key_data(keys_B: jax.Array | None, number: int | jax.Array) -> jax.Array:
        folded_B = fold_keys(keys_B, number)
        assert folded_B is not None, "adapters without dropout need no keys"
        return jax.random.key_data(folded_B)

    for name, node in _projections(module):
        if isinstance(node, ExpertLinear) or node.lora_a is None:
            continue
        number = _number(name)
        *stack, _, _ = node.lora_a[...].shape
        if stack:
            of_layer = functools.partial(key_data, fold_keys(keys_B, number))
            node.lora_dropout_keys = jax.vmap(of_layer)(jnp.arange(stack[0]))
        else:  # A projection outside the layers.
            node.lora_dropout_keys = key_data(keys_B, number)


def with_magnitudes(trained: Any, frozen: Any, config: LoraConfig, dtype: Any) -> Any:
    """Return the adapters of a run's start, with DoRA's magnitudes those of the frozen weights.

    Args:
        trained: The adapters.
        frozen: The frozen parameters, as a run holds them.
        config: The config of the adapters.
        dtype: The compute dtype, in which quantized weights are used.
    """
    if not config.dora:
        return trained
    flat, weights = map(traverse_util.flatten_dict, (trained, frozen))

    def norms_of_layer(weight_and_adapter: tuple[Any, jax.Array, jax.Array]) -> jax.Array:
        weight, a, b = weight_and_adapter
        return column_norms(get_weight(weight, (), dtype), a, b, 1.0)

    for path in [path for path in flat if path[-1] == MAGNITUDE]:
        module = path[:-1]
        stack = {key[len(module) :]: leaf for key, leaf in weights.items() if key[:-1] == module}
        # One layer at a time, so that the numbers of a single one are in memory.
        layers = (stack, flat[*module, "lora_a"], jnp.zeros_like(flat[*module, "lora_b"]))
        is_stacked = flat[path].ndim > 1
        flat[path] = jax.lax.map(norms_of_layer, layers) if is_stacked else norms_of_layer(layers)
    return traverse_util.unflatten_dict(flat)


def merge(params: Any, config: LoraConfig) -> Any:
    """Return the parameters of the same function without adapters, in float32.

    They are W + s A B, with DoRA scaled to the magnitudes. Quantized weights are dequantized: the
    adapters were trained beside the rounded numbers, not the released ones.
    """
    flat = traverse_util.flatten_dict(dequantize_params(params))
    merged = {path: leaf for path, leaf in flat.items() if path[-1] not in ADAPTER_NAMES}
    for (*module, name), a in flat.items():
        if name != "lora_a":
            continue
        path = (*module, "weight")
        b, scale = flat[*module, "lora_b"], config.scale_of(".".join(map(str, module)))
        weight = merged[path].astype(jnp.float32)
        merged[path] = weight + scale * jnp.matmul(a, b, precision="highest")
        if config.dora:
            gains = flat[*module, MAGNITUDE] / column_norms(weight, a, b, scale)
            merged[path] *= gains[..., None, :]
    return traverse_util.unflatten_dict(merged)
