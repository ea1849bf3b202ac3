"""Weights from named tensors into the sharded layout.

Shape suffixes: V vocabulary rows, D model width.
"""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.sharding import Mesh

from ift_jax.errors import UserError
from ift_jax.interop.hugging_face_names import COPIES, IGNORED, Entry, leaves, table
from ift_jax.interop.safetensors_files import Index, Tensor, some
from ift_jax.models.model import Model, Params
from ift_jax.sharding import rules

_ROWS = 4096  # Of a large tensor, that are compared at a time.


def check_tensors(model: Model, tensors: Mapping[str, Tensor], where: str) -> dict[str, str]:
    """Of tensors that a folder of a model leaves out because they repeat another: that other.

    Raises:
        UserError: missing, surplus or misshapen tensors (the first of each kind and how many),
            or a copy that differs.
    """
    wanted = {name: entry.their_shape for entry in table(model) for name in entry.names}
    copies, absent = COPIES[model.config.architecture], [n for n in wanted if n not in tensors]
    # An untied head that is left out is a copy of the embedding (transformers ties such T5s).
    is_t5 = model.config.architecture == "encoder_decoder"
    instead = {n: copies[n] for n in absent if is_t5 and copies.get(n) in tensors}
    found = {
        "missing": [n for n in absent if n not in instead],
        "surplus": [n for n in tensors if not (n in wanted or n in copies or n.endswith(IGNORED))],
        "misshapen": [
            f"{n} {tensors[n].shape} instead of {shape}"
            for n, shape in wanted.items()
            if n in tensors and tensors[n].shape != shape
        ],
    }
    problems = [f"{kind}: {some(names)}" for kind, names in found.items() if names]
    if problems:
        raise UserError(f"{where}: not the tensors of its config.json; {'; '.join(problems)}")
    for name, source in copies.items():
        if name in tensors and name not in wanted and not _equal(tensors[name], tensors[source]):
            raise UserError(
                f"{where}: {name} differs from {source}; the config.json says that they are tied"
            )
    return instead


def _equal(a: Tensor, b: Tensor) -> bool:
    parts = [(slice(i, i + _ROWS),) for i in range(0, a.shape[0], _ROWS)]
    same = (a.shape, a.dtype) == (b.shape, b.dtype)
    return same and all(np.array_equal(a.read(part), b.read(part)) for part in parts)


def load_params(model: Model, mesh: Mesh, tensors: Mapping[str, Tensor], where: str) -> Params:
    """The parameters of a model as the folder has it, float32, each device's part read by itself.

    One parameter at a time, the largest first, so that what is read is in memory twice for the
    smallest ones only at the end.

    Raises:
        UserError: see `check_tensors`; `where` is what the message calls the folder.
    """
    instead = check_tensors(model, tensors, where)
    shardings = dict(leaves(rules.tree_shardings(mesh, model.logical_axes, model.shapes)))
    params = {}
    for entry in sorted(table(model), key=lambda entry: -np.prod(entry.shape)):
        sources = [tensors[instead.get(name, name)] for name in entry.names]
        read = functools.partial(_read, entry, sources)
        array = jax.make_array_from_callback(entry.shape, shardings[entry.path], read)
        params[entry.path] = array.block_until_ready()
    return traverse_util.unflatten_dict(params, sep=".")


def _read(entry: Entry, sources: list[Tensor], index: Index) -> np.ndarray:
    """A part of our array; index as devices ask for it."""

    def one(source: Tensor, part: Index) -> np.ndarray:
        return source.read(part[::-1]).T if entry.transposed else source.read(part)

    if not entry.stacked:
        return one(sources[0], index).astype(np.float32)
    shape = [len(range(*s.indices(n))) for s, n in zip(index, entry.shape, strict=True)]
    values = np.empty(shape, np.float32)
    for i, source in enumerate(sources[index[0]]):
        values[i] = one(source, index[1:])
    return values


def fit_vocabulary(
    params: Params, model: Model, mesh: Mesh, *, n_given: int, n_tokens: int
) -> Params:
    """Parameters of the same model with as many rows or fewer, with the vocabulary of `model`.

    Rows that are new, and rows that tokens take which were added to the tokenizer (n_given before,
    n_tokens now), are the mean of the rows of the tokens that it had (as Alpaca does): the
    embedding's and the head's each by its own.
    """
    fitted = dict(params)
    for name, axis in {"embedding": 0, "head": 1}.items():
        if name not in params:
            continue
        rows, wanted = params[name].shape[axis], model.shapes[name].shape[axis]
        if rows != wanted or n_given < min(n_tokens, rows):
            sharding = rules.tree_shardings(mesh, model.logical_axes, model.shapes)[name]
            fit = jax.jit(_fit, static_argnums=(1, 2, 3, 4), out_shardings=sharding)
            fitted[name] = fit(params[name], axis, wanted, min(n_given, rows), n_tokens)
    return fitted


def _fit(table: jax.Array, axis: int, wanted: int, n_given: int, n_tokens: int) -> jax.Array:
    table_VxD = jnp.moveaxis(table, axis, 0)
    mean_1xD = table_VxD[:n_given].mean(axis=0, keepdims=True)
    n_old = table_VxD.shape[0]
    table_VxD = jnp.pad(table_VxD, ((0, wanted - n_old), (0, 0)))
    row_Vx1 = jnp.arange(wanted)[:, None]
    new_Vx1 = (row_Vx1 >= n_old) | ((row_Vx1 >= n_given) & (row_Vx1 < n_tokens))
    return jnp.moveaxis(jnp.where(new_Vx1, mean_1xD, table_VxD), 0, axis)
