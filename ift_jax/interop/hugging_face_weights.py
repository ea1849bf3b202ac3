"""From the named tensors of a release to sharded parameters.

Shape suffixes: V vocabulary rows, D model width.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.sharding import Mesh

from ift_jax.errors import UserError
from ift_jax.interop.model_family import ModelFamily
from ift_jax.interop.safetensors_files import Index, Tensor, some
from ift_jax.interop.tensor_names import TensorNames
from ift_jax.interop.tensor_table import TensorEntry, leaves, tensor_table
from ift_jax.models.model import Model, Params
from ift_jax.sharding import rules

Slices = tuple[slice, ...]  # The part of our parameter that a device holds.
_ROWS_COMPARED_AT_ONCE = 4096
# The parameters with an axis of tokens, and that axis.
_VOCABULARY_AXES = {
    ("embedding",): 0,
    ("encoder_embedding",): 0,
    ("head",): 1,
    ("layer_inputs", "table"): 0,
}

# Turns a parameter, given its dotted path, into the arrays that are kept of it, by dotted path.
Convert = Callable[[str, jax.Array], dict[str, jax.Array]]


def keep_as_it_is(path: str, array: jax.Array) -> dict[str, jax.Array]:
    """The `Convert` that changes nothing."""
    return {path: array}


def load_params(
    model: Model,
    mesh: Mesh,
    tensors: Mapping[str, Tensor],
    where: str,
    family: ModelFamily[Any],
    convert: Convert = keep_as_it_is,
) -> Params:
    """Load a model's parameters, float32; only the parts that this host's devices need are read.

    Parameters are loaded one at a time, the largest first: while one is transferred it is in
    memory twice, and at the end, when memory is fullest, that is only true of small ones.

    Args:
        model: The model, with stacked layers.
        mesh: The devices; parameters are sharded over them by their logical axes.
        tensors: The tensors of the release by name.
        where: What messages call the folder.
        family: The family, which knows the tensors' names.
        convert: What becomes of each parameter before the next one is read.

    Raises:
        UserError: The tensors are not those of the model, see `check_tensors`.
    """
    tensors = family.by_released_names(tensors)
    substitutes = check_tensors(model, tensors, where, family)
    shardings = dict(leaves(rules.tree_shardings(mesh, model.logical_axes, model.shapes)))
    largest_first = sorted(tensor_table(model, family), key=lambda entry: -np.prod(entry.shape))
    params: dict[str, jax.Array] = {}
    for entry in largest_first:
        sources = [tensors[substitutes.get(name, name)] for name in entry.names]
        read = functools.partial(_read_part, entry, sources)
        array = jax.make_array_from_callback(entry.shape, shardings[entry.path], read)
        params |= jax.block_until_ready(convert(entry.path, array))
    return traverse_util.unflatten_dict(params, sep=".")


def check_tensors(
    model: Model, tensors: Mapping[str, Tensor], where: str, family: ModelFamily[Any]
) -> dict[str, str]:
    """Check that a folder holds exactly the tensors of a model.

    Args:
        model: The model, with stacked layers.
        tensors: The tensors of the folder by name.
        where: What messages call the folder.
        family: The family, which knows the tensors' names.

    Returns:
        The tensors that the folder leaves out -> the ones that hold the same values.

    Raises:
        UserError: Tensors are missing, surplus or of another shape (the first of each kind are
            named), or one that should repeat another differs from it.
    """
    entries = tensor_table(model, family)
    wanted = {name: entry.their_shape for entry in entries for name in entry.names}
    names = family.tensor_names(model.config)
    absent = [name for name in wanted if name not in tensors]
    substitutes = {
        name: names.copies[name]
        for name in absent
        if name in names.may_be_omitted and names.copies[name] in tensors
    }
    found = {
        "missing": [name for name in absent if name not in substitutes],
        "surplus": [name for name in tensors if not _is_known(name, wanted, names)],
        "misshapen": [
            f"{name} {tensors[name].shape} instead of {shape}"
            for name, shape in wanted.items()
            if name in tensors and tensors[name].shape != shape
        ],
    }
    problems = [f"{kind}: {some(listed)}" for kind, listed in found.items() if listed]
    if problems:
        raise UserError(f"{where}: not the tensors of its config.json; {'; '.join(problems)}")
    for name, original in names.copies.items():
        if name in wanted or name not in tensors:
            continue
        if not _equal(tensors[name], tensors[original]):
            raise UserError(
                f"{where}: {name} differs from {original}; the config.json says that they are tied"
            )
    return substitutes


def _is_known(name: str, wanted: Mapping[str, Any], names: TensorNames) -> bool:
    is_ignored = name.startswith(names.ignored_beginnings) or name.endswith(names.ignored_endings)
    return name in wanted or name in names.copies or is_ignored


def _equal(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same values; a few rows at a time are in memory."""
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return False
    for start in range(0, a.shape[0], _ROWS_COMPARED_AT_ONCE):
        rows = (slice(start, start + _ROWS_COMPARED_AT_ONCE),)
        if not np.array_equal(a.read(rows), b.read(rows)):
            return False
    return True


def _read_part(entry: TensorEntry, sources: list[Tensor], index: Slices) -> np.ndarray:
    """Read the part of our parameter that a device asks for, float32."""
    if not entry.stack:
        return _read_ours(entry, sources[0], index).astype(np.float32)
    n_stacked = len(entry.stack)
    numbers = np.arange(len(sources)).reshape(entry.stack)[index[:n_stacked]]
    shape = [len(range(*s.indices(n))) for s, n in zip(index, entry.shape, strict=True)]
    values = np.empty(shape, np.float32)
    for place, number in np.ndenumerate(numbers):
        values[place] = _read_ours(entry, sources[number], index[n_stacked:])
    return values


def _read_ours(entry: TensorEntry, source: Tensor, index: Slices) -> np.ndarray:
    """Read a part of one of their tensors in our orientation."""
    index = index[::-1] if entry.transposed else index
    if entry.scalar:
        return source.read(()).reshape(1)[index]
    if entry.convolves:
        return source.read((index[0], slice(None), index[1]))[:, 0].T
    wanted: Index = index
    if entry.fused_rows:
        axis = entry.fused_axis
        wanted = (*index[:axis], entry.their_rows(index[axis]), *index[axis + 1 :])
    values = source.read(wanted)
    return values.T if entry.transposed else values


def fit_vocabulary(
    params: Params, model: Model, mesh: Mesh, *, n_given: int, n_tokens: int
) -> Params:
    """Give the embeddings and the head as many rows as a model's vocabulary has.

    New rows, and rows of tokens that were added to the tokenizer, get the mean of the rows of the
    tokens that it had, as in Alpaca; the mean of each table is taken separately, and is the same to
    the bit on every mesh.

    Args:
        params: The parameters of the same model with as many rows or fewer.
        model: The model with the wanted vocabulary.
        mesh: The devices that hold `params`.
        n_given: The tokens of the tokenizer as it was released.
        n_tokens: The tokens that it has now.
    """
    fitted = traverse_util.flatten_dict(params)
    shapes = traverse_util.flatten_dict(model.shapes)
    shardings = rules.tree_shardings(mesh, model.logical_axes, model.shapes)
    flat_shardings = traverse_util.flatten_dict(shardings)
    for path, axis in _VOCABULARY_AXES.items():
        if path not in fitted:
            continue
        n_rows = fitted[path].shape[axis]
        n_wanted = shapes[path].shape[axis]
        if n_rows != n_wanted or n_given < min(n_tokens, n_rows):
            fit = jax.jit(_fit, static_argnums=(1, 2, 3, 4), out_shardings=flat_shardings[path])
            fitted[path] = fit(fitted[path], axis, n_wanted, min(n_given, n_rows), n_tokens)
    return traverse_util.unflatten_dict(fitted)


def _fit(table: jax.Array, axis: int, n_wanted: int, n_given: int, n_tokens: int) -> jax.Array:
    """Fit a table whose vocabulary is along an axis."""
    table_VxD = jnp.moveaxis(table, axis, 0)
    mean_1xD = _mean_of_rows(table_VxD[:n_given])
    n_rows = table_VxD.shape[0]
    table_VxD = jnp.pad(table_VxD, ((0, n_wanted - n_rows), (0, 0)))
    row_Vx1 = jnp.arange(n_wanted)[:, None]
    is_added_token_Vx1 = (row_Vx1 >= n_given) & (row_Vx1 < n_tokens)
    is_new_Vx1 = (row_Vx1 >= n_rows) | is_added_token_Vx1
    return jnp.moveaxis(jnp.where(is_new_Vx1, mean_1xD, table_VxD), 0, axis)


def _mean_of_rows(table_VxD: jax.Array) -> jax.Array:
    """The mean row, 1xD, the same to the bit on every mesh and platform.

    A LoRA run's frozen weights are recognized by their bits, and a sum of floats depends on how it
    is cut. So numbers are rounded to integers of 24 bits relative to the largest one, and added in
    two halves that 32 bits hold. After that only products by powers of two and two roundings are
    left. The error is at most 2**-24 of the largest number, and two roundings.

    From 2**19 rows on, the sums of the halves have room for fewer bits: 22, and two fewer each time
    that the rows double. The error is then at most 2**-22 of the largest number, and so on.
    """
    n_rows = table_VxD.shape[0]
    n_low = 31 - n_rows.bit_length()
    n_bits = min(24, 2 * n_low)
    largest = jnp.abs(table_VxD).max()
    _, exponent = jnp.frexp(jnp.maximum(largest, 2.0**-80))  # No factor below is denormal.
    whole = jnp.round(table_VxD * _power_of_two(n_bits - exponent)).astype(jnp.int32)
    half = n_bits // 2
    high_1xD = (whole >> half).sum(axis=0, keepdims=True).astype(jnp.float32)
    low_1xD = (whole & (2**half - 1)).sum(axis=0, keepdims=True).astype(jnp.float32)
    sum_1xD = high_1xD * np.float32(2**half) + low_1xD
    mean_1xD = sum_1xD * np.float32(1 / n_rows) * _power_of_two(exponent - n_bits)
    return mean_1xD.astype(table_VxD.dtype)


def _power_of_two(exponent: jax.Array) -> jax.Array:
    """2.0 to a power between -126 and 127, exactly."""
    bits = (jnp.clip(exponent, -126, 127) + 127) << 23
    return jax.lax.bitcast_convert_type(bits.astype(jnp.int32), jnp.float32)
