"""A model as a folder that `transformers` loads with no extra step."""

import collections
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from ift_jax.config.schema import DecoderConfig
from ift_jax.errors import UserError
from ift_jax.interop.hugging_face_config import to_hugging_face
from ift_jax.interop.hugging_face_names import Entry, at, table
from ift_jax.interop.safetensors_files import (
    DTYPES,
    INDEX,
    new_folder,
    write_files,
    write_safetensors,
)
from ift_jax.interop.sentencepiece_json import to_tokenizer_json
from ift_jax.models.model import Model, Params
from ift_jax.text.tokenizers.load import Tokenizer

TORCH_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


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
) -> None:
    """Writes weights, config, tokenizer, chat template and generation config.

    Every process of a run calls it; process 0 writes. One tensor (of one layer) is gathered at a
    time. The folder `output` appears under its name when it is whole.

    `template` is the text of the chat template (Jinja; "": none is written), `stop_ids` are what
    ends an answer. The weights' `dtype` is "float32", "bfloat16", "float16", or "source" (each
    tensor its own of `source_dtypes`, name -> "BF16", else the commonest there, else float32). A
    file holds no more than `shard_bytes`, but at least one tensor. `max_length` is the model's
    positions where its config has no bound.

    Raises:
        UserError: the folder is not empty, no Hugging Face family has the model's fields, or a
            weight does not fit float16.
    """
    fields = to_hugging_face(model.config, max_length)
    places = {name: (e, i) for e in table(model) for i, name in enumerate(e.names)}
    dtypes = _dtypes(list(places), dtype, source_dtypes or {})
    tensors = {name: (places[name][0].their_shape, DTYPES[dtypes[name]]) for name in places}
    commonest = collections.Counter(dtypes.values()).most_common(1)[0][0]
    fields |= {"torch_dtype": TORCH_DTYPES[commonest], **_ids(tokenizer, model, ())}
    sizes = {n: math.prod(shape) * kind.itemsize for n, (shape, kind) in tensors.items()}
    shards = _shards(sizes, shard_bytes)

    def get(name: str) -> np.ndarray:
        entry, layer = places[name]
        leaf = at(params, entry.path)
        if entry.stacked:
            leaf = jax.lax.dynamic_index_in_dim(leaf, layer, keepdims=False)
        values = multihost_utils.process_allgather(leaf, tiled=True)
        return _cast(name, values.T if entry.transposed else values, tensors[name][1], entry)

    writes = jax.process_index() == 0
    with new_folder(output, "--output", writes) as partial:
        weight_map: dict[str, str] = {}
        for i, names in enumerate(shards, start=1):
            file = f"model-{i:05}-of-{len(shards):05}" if len(shards) > 1 else "model"
            of_file = {name: tensors[name] for name in names}
            write_safetensors(os.path.join(partial, f"{file}.safetensors"), of_file, get, writes)
            weight_map |= dict.fromkeys(names, f"{file}.safetensors")
        if writes:
            index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
            write_files(
                partial,
                {
                    **tokenizer_files(tokenizer, model, template, max_length),
                    "config.json": fields,
                    "generation_config.json": _ids(tokenizer, model, stop_ids),
                    **({INDEX: index} if len(shards) > 1 else {}),
                },
            )


def _cast(name: str, values: np.ndarray, dtype: np.dtype, entry: Entry) -> np.ndarray:
    with np.errstate(over="ignore"):
        cast = values.astype(dtype)
    if dtype == np.float16 and not np.isfinite(cast).all() and np.isfinite(values).all():
        raise UserError(
            f"--dtype float16: {name} ({entry.path}) has values up to "
            f"{np.abs(values).max():.3g}; choose bfloat16 or float32"
        )
    return cast


def _dtypes(names: list[str], dtype: str, source: Mapping[str, str]) -> dict[str, str]:
    if dtype != "source":
        return dict.fromkeys(names, next(n for n, t in TORCH_DTYPES.items() if t == dtype))
    known = collections.Counter(source[name] for name in names if name in source)
    other = known.most_common(1)[0][0] if known else "F32"
    return {name: source.get(name, other) for name in names}


def _shards(sizes: Mapping[str, int], most: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    room = most
    for name, size in sizes.items():
        if size > room and shards[-1]:
            shards.append([])
            room = most
        shards[-1].append(name)
        room -= size
    return shards


def _ids(tokenizer: Tokenizer, model: Model, stop_ids: Sequence[int]) -> dict[str, Any]:
    """The token ids of config.json, or with what ends an answer of generation_config.json."""
    ends = sorted(set(stop_ids)) or [tokenizer.eos_id]
    ids: dict[str, Any] = {"eos_token_id": ends[0] if len(ends) == 1 else ends}
    ids["pad_token_id"] = tokenizer.pad_id
    if tokenizer.bos_id is not None:
        ids["bos_token_id"] = tokenizer.bos_id
    if not isinstance(model.config, DecoderConfig):
        ids["decoder_start_token_id"] = tokenizer.pad_id
    return ids


def tokenizer_files(
    tokenizer: Tokenizer, model: Model, template: str, max_length: int
) -> dict[str, Any]:
    """The tokenizer's own files and what `transformers` wants beside them."""
    files: dict[str, Any] = dict(tokenizer.files)
    names = {"eos": tokenizer.eos_id, "pad": tokenizer.pad_id, "bos": tokenizer.bos_id}
    fields: dict[str, Any] = {
        f"{name}_token": tokenizer.decode([token], keep_special=True)
        for name, token in names.items()
        if token is not None
    }
    if "tokenizer.json" not in files:
        ends = not isinstance(model.config, DecoderConfig)
        eos = (fields["eos_token"], tokenizer.eos_id) if ends else None
        text = to_tokenizer_json(files["tokenizer.model"], tokenizer.special_tokens, eos)
        files["tokenizer.json"] = text.encode()
    # tokenizer_config.json says all that this older file does.
    given = json.loads(files.pop("special_tokens_map.json", b"{}"))
    unknown = json.loads(files["tokenizer.json"])["model"].get("unk_token")
    if unknown and "unk_token" not in given:
        fields["unk_token"] = unknown
    fields = given | fields | {"tokenizer_class": "PreTrainedTokenizerFast"}
    fields["clean_up_tokenization_spaces"] = False
    if length := getattr(model.config, "max_length", 0) or max_length:
        fields["model_max_length"] = length
    files["tokenizer_config.json"] = fields
    if template:
        files["chat_template.jinja"] = template.encode()
    return files
