"""A model as a folder that `transformers` loads without any further step."""

import collections
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ift_jax.interop import verify_export
from ift_jax.interop.exported_tensors import (
    TORCH_DTYPES,
    ExportedTensor,
    exported_tensors,
    gatherer,
)
from ift_jax.interop.hugging_face_tokenizer import token_ids, tokenizer_files
from ift_jax.interop.qwen2_tokenizer import choose_family
from ift_jax.interop.safetensors_files import DTYPES, INDEX, open_safetensors, write_safetensors
from ift_jax.interop.tensor_table import tensor_table
from ift_jax.interop.verify_export import WrittenTensor, written
from ift_jax.io.folders import new_folder, write_files
from ift_jax.io.outputs import check_space
from ift_jax.models.model import Model, Params
from ift_jax.text.tokenizers.base import Tokenizer

CARD_FILE = "README.md"  # Where the Hugging Face hub looks for a model card.


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
    tokenizer_json = files.get("tokenizer.json", b"")
    exported = choose_family(model, params, tokenizer_json, max_length, model_type)
    model, params = exported.model, exported.params
    family, fields = exported.target
    tensors = exported_tensors(tensor_table(model, family), dtype, source_dtypes or {})
    shards = _shards({name: tensor.n_bytes for name, tensor in tensors.items()}, shard_bytes)
    counts = collections.Counter(tensor.dtype for tensor in tensors.values())

    total = sum(tensor.n_bytes for tensor in tensors.values())
    if writes := jax.process_index() == 0:
        check_space(output, total, "--output")
    with new_folder(output, "--output", writes) as folder:
        weight_map, checksums = _write_shards(folder, shards, tensors, params, writes)
        if not writes:
            return ()
        fields = family.with_token_ids(fields, token_ids(tokenizer, model))
        dtype_name = TORCH_DTYPES[counts.most_common(1)[0][0]]
        files["config.json"] = fields | {"torch_dtype": dtype_name}
        own_ids = token_ids(tokenizer, model, stop_ids)
        files["generation_config.json"] = dict(generation or {}) | own_ids
        if len(shards) > 1:
            files[INDEX] = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_files(folder, files)
        verify_export.check_tensors(open_safetensors(folder), checksums)
        verify_export.check_config(folder, model.config, max_length)
        verify_export.check_tokenizer(folder, tokenizer)
        verify_export.check_in_transformers(folder, tokenizer, chat_ids)
    notes = (exported.note, family.export_note(model.config))
    return tuple(note for note in notes if note)


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
    tensors: Mapping[str, ExportedTensor],
    params: Params,
    writes: bool,
) -> tuple[dict[str, str], dict[str, WrittenTensor]]:
    """Write the weights; return the file of each tensor, and what was written of it."""
    gather = gatherer(tensors, params)
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
