"""A model as a folder that `transformers` loads without any further step."""

import collections
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from ift_jax.errors import UserError
from ift_jax.interop import verify_export
from ift_jax.interop.hugging_face_tokenizer import token_ids, tokenizer_files
from ift_jax.interop.qwen2_tokenizer import choose_family
from ift_jax.interop.safetensors_files import DTYPES, INDEX, open_safetensors, write_safetensors
from ift_jax.interop.tensor_table import TensorEntry, leaf_at, tensor_table
from ift_jax.interop.verify_export import WrittenTensor, written
from ift_jax.io.folders import new_folder, write_files
from ift_jax.io.outputs import check_space
from ift_jax.models.model import Model, Params
from ift_jax.text.tokenizers.base import Tokenizer

# The dtypes of safetensors -> torch's names of them.
TORCH_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


CARD_FILE = "README.md"  # Where the Hugging Face hub looks for a model card.


class _ExportedTensor(NamedTuple):
    """A tensor of the folder: layer `layer` of a parameter, or a parameter without layers."""

    parts: tuple[TensorEntry, ...]  # One, unless projections are fused.
    layer: int
    dtype: str  # As safetensors spells it.

    @property
    def shape(self) -> tuple[int, ...]:
        return self.parts[0].their_shape

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


def export(
    model: Model,
    params: Params,
    tokenizer: Tokenizer,
    output: str,
    *,
    template: str = "",
    stop_ids: Sequence[int] = (),
    dtype: str = "source",
    source_dtypes: Mapping[str, str] | None = None,
    shard_bytes: int = 5_000_000_000,
    max_length: int = 0,
    generation: Mapping[str, Any] | None = None,
    chat_ids: Sequence[int] | None = None,
    card: str = "",
    model_type: str = "",
) -> tuple[str, ...]:
    """Write weights, config, tokenizer, chat template and generation config.

    Every process of a run calls it, and process 0 writes. One tensor (of one layer) is gathered at
    a time. The folder appears under its name once it is complete, and has been read back and
    compared.

    Args:
        model: The model, with stacked layers.
        params: The model's parameters.
        tokenizer: Written beside the model.
        output: The folder.
        template: The text of the chat template (Jinja); "": none is written.
        stop_ids: The tokens that end an answer; none: EOS alone.
        dtype: "float32", "bfloat16", "float16" or "source": each tensor has the dtype that it has
            in `source_dtypes`, others have the commonest there, else float32.
        source_dtypes: The name of a tensor -> its dtype in the release ("BF16").
        shard_bytes: The most bytes of a file, which holds at least one tensor.
        max_length: The positions of a model whose config has no bound.
        generation: The sampling defaults of the model that the run started from.
        chat_ids: The prompt ids of `sample_texts.CONVERSATION` by the template, to compare with.
        card: The text of the model card; "": none is written.
        model_type: The family to write if it has such models; by default the first that has.

    Returns:
        What a user should know about the folder, in sentences.

    Raises:
        UserError: The folder is not empty, its disk has no room for the weights, no Hugging Face
            family has the model's fields, a weight does not fit float16, or the folder does not
            read back as what was written.
        WriteError: A file cannot be written.
    """
    files = tokenizer_files(tokenizer, model, template, max_length)
    files |= {CARD_FILE: card.encode()} if card else {}
    exported = choose_family(model, params, files["tokenizer.json"], max_length, model_type)
    model, params = exported.model, exported.params
    family, fields = exported.target
    tensors = _exported_tensors(tensor_table(model, family), dtype, source_dtypes or {})
    shards = _shards({name: tensor.n_bytes for name, tensor in tensors.items()}, shard_bytes)
    counts = collections.Counter(tensor.dtype for tensor in tensors.values())

    total = sum(tensor.n_bytes for tensor in tensors.values())
    if writes := jax.process_index() == 0:
        check_space(output, total, "--output")
    with new_folder(output, "--output", writes) as folder:
        weight_map, checksums = _write_shards(folder, shards, tensors, params, writes)
        if not writes:
            return ()
        files["config.json"] = {
            **fields,
            "torch_dtype": TORCH_DTYPES[counts.most_common(1)[0][0]],
            **token_ids(tokenizer, model),
        }
        own_ids = token_ids(tokenizer, model, stop_ids)
        files["generation_config.json"] = dict(generation or {}) | own_ids
        if len(shards) > 1:
            files[INDEX] = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_files(folder, files)
        verify_export.check_tensors(open_safetensors(folder), checksums)
        verify_export.check_config(folder, model.config, max_length)
        verify_export.check_tokenizer(folder, tokenizer)
        verify_export.check_in_transformers(folder, tokenizer, chat_ids)
    return (exported.note,) if exported.note else ()


def _exported_tensors(
    entries: list[TensorEntry], dtype: str, source_dtypes: Mapping[str, str]
) -> dict[str, _ExportedTensor]:
    """Return the tensors of the folder by name, in the order of `entries`."""
    names = [name for entry in entries for name in entry.names]
    dtypes = _dtypes(names, dtype, source_dtypes)
    tensors: dict[str, _ExportedTensor] = {}
    for entry in entries:
        for layer, name in enumerate(entry.names):
            parts = (*tensors[name].parts, entry) if name in tensors else (entry,)
            in_order = tuple(sorted(parts, key=lambda part: part.first_row))
            tensors[name] = _ExportedTensor(in_order, layer, dtypes[name])
    return tensors


def _dtypes(names: list[str], dtype: str, source_dtypes: Mapping[str, str]) -> dict[str, str]:
    """Return each tensor's dtype, as safetensors spells it."""
    if dtype != "source":
        spelled = {torch_name: name for name, torch_name in TORCH_DTYPES.items()}
        return dict.fromkeys(names, spelled[dtype])
    known = collections.Counter(source_dtypes[name] for name in names if name in source_dtypes)
    commonest = known.most_common(1)[0][0] if known else "F32"
    return {name: source_dtypes.get(name, commonest) for name in names}


def _shards(sizes: Mapping[str, int], shard_bytes: int) -> list[list[str]]:
    """Distribute tensors (name -> bytes) over files, in order."""
    shards: list[list[str]] = [[]]
    room = shard_bytes
    for name, size in sizes.items():
        if size > room and shards[-1]:
            shards.append([])
            room = shard_bytes
        shards[-1].append(name)
        room -= size
    return shards


def _write_shards(
    folder: str,
    shards: list[list[str]],
    tensors: Mapping[str, _ExportedTensor],
    params: Params,
    writes: bool,
) -> tuple[dict[str, str], dict[str, WrittenTensor]]:
    """Write the weights; return the file of each tensor, and what was written of it."""
    gather = _gatherer(tensors, params)
    weight_map: dict[str, str] = {}
    checksums: dict[str, WrittenTensor] = {}

    def gather_and_note(name: str) -> np.ndarray:
        values = gather(name)
        if writes:
            checksums[name] = written(values)
        return values

    for i, names in enumerate(shards, start=1):
        stem = f"model-{i:05}-of-{len(shards):05}" if len(shards) > 1 else "model"
        layout = {name: (tensors[name].shape, DTYPES[tensors[name].dtype]) for name in names}
        file = f"{stem}.safetensors"
        write_safetensors(os.path.join(folder, file), layout, gather_and_note, writes)
        weight_map |= dict.fromkeys(names, file)
    return weight_map, checksums


def _gatherer(
    tensors: Mapping[str, _ExportedTensor], params: Params
) -> Callable[[str], np.ndarray]:
    """Return a function that gathers a tensor from all devices; every process must call it."""

    def gather_part(entry: TensorEntry, layer: int) -> np.ndarray:
        leaf = leaf_at(params, entry.path)
        if entry.stacked:
            leaf = jax.lax.dynamic_index_in_dim(leaf, layer, keepdims=False)
        values: np.ndarray = multihost_utils.process_allgather(leaf, tiled=True)
        return values.T if entry.transposed else values

    def gather(name: str) -> np.ndarray:
        parts, layer, dtype = tensors[name]
        cast = [_cast(name, gather_part(part, layer), DTYPES[dtype], part) for part in parts]
        return cast[0] if len(cast) == 1 else np.concatenate(cast)

    return gather


def _cast(name: str, values: np.ndarray, dtype: np.dtype, entry: TensorEntry) -> np.ndarray:
    with np.errstate(over="ignore"):
        cast = values.astype(dtype)
    if dtype == np.float16 and not np.isfinite(cast).all() and np.isfinite(values).all():
        raise UserError(
            f"--dtype float16: {name} ({entry.path}) has values up to "
            f"{np.abs(values).max():.3g}; choose bfloat16 or float32"
        )
    return cast
