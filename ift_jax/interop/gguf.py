"""GGUF files as the Hugging Face folders that they come from: config, tokenizer and tensors.

Files of `gguf_architectures.ARCHITECTURES` with a byte-level BPE tokenizer are read (SmolLM2 and
Mistral are Llamas); tensors are dequantized to float32. What is not understood in a file is refused
by name.
"""

import functools
import importlib
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ift_jax.errors import UserError
from ift_jax.interop.gguf_architectures import (
    ARCHITECTURES,
    OUTER_NAMES,
    ROPE_FACTORS,
    GgufArchitecture,
)
from ift_jax.interop.gguf_config import config_fields, generation_defaults
from ift_jax.interop.gguf_file import GgufTensor, read_gguf
from ift_jax.interop.gguf_rope import llama3_scaling
from ift_jax.interop.gguf_tokenizer import stop_ids, tokenizer_files
from ift_jax.interop.safetensors_files import Index, Tensor
from ift_jax.io.typed_fields import TypedFields

_NAME = re.compile(r"(?:blk\.(\d{1,5})\.)?(\w+)\.(weight|bias)")
# GGML's numbers of the types that need no dequantizing.
_PLAIN = {0: np.dtype(np.float32), 1: np.dtype(np.float16), 30: np.dtype(jnp.bfloat16)}


class GgufModel(NamedTuple):
    """What a GGUF file holds.

    Attributes:
        fields: The fields of a `config.json`.
        tensors: Tensors by the names that Hugging Face gives them, float32.
        tokenizer_files: The tokenizer's files: name -> content.
        generation: The fields of a `generation_config.json`.
        stop_ids: The ids of the tokens that end an answer.
    """

    fields: dict[str, Any]
    tensors: dict[str, Tensor]
    tokenizer_files: dict[str, bytes]
    generation: dict[str, Any]
    stop_ids: tuple[int, ...]


def open_gguf(path: str) -> GgufModel:
    """Open a file; tensors are read when they are asked for.

    Raises:
        UserError: The file is broken, has another architecture, or holds something that is not
            understood, or weights in it are quantized and the `gguf` package is not installed.
    """
    metadata, stored = read_gguf(path, functools.partial(_n_bytes, path))
    fields = TypedFields(metadata, path)
    config = config_fields(fields)
    architecture = ARCHITECTURES[metadata["general.architecture"]]
    config |= llama3_scaling(config, _rope_factors(path, stored), path)
    tensors = _tensors(path, stored, config, architecture)
    embedding = tensors.get("model.embed_tokens.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise UserError(f"{path}: no tensor token_embd.weight; expected the table of embeddings")
    config["vocab_size"] = embedding.shape[0]
    size_field = f"{architecture.name}.vocab_size"
    if metadata.get(size_field, embedding.shape[0]) != embedding.shape[0]:
        found = metadata[size_field]
        raise fields.refusal(size_field, found, f"the {embedding.shape[0]} embeddings")
    config["tie_word_embeddings"] = "lm_head.weight" not in tensors
    for field, module in architecture.bias_fields.items():
        config[field] = f"model.layers.0.{module}.bias" in tensors
    files = tokenizer_files(fields, n_rows=embedding.shape[0])
    return GgufModel(config, tensors, files, generation_defaults(fields), stop_ids(fields))


def _tensors(
    path: str,
    stored: dict[str, GgufTensor],
    config: dict[str, Any],
    architecture: GgufArchitecture,
) -> dict[str, Tensor]:
    """Return the tensors by the names that Hugging Face gives them."""
    rotated_heads = interleaved_heads(architecture, config)
    tensors = {}
    for their_name, tensor in stored.items():
        if their_name == ROPE_FACTORS:
            continue
        match = _NAME.fullmatch(their_name)
        layer, part, kind = match.groups() if match else (None, "", "")
        names = OUTER_NAMES if layer is None else architecture.layer_names
        if part not in names:
            raise UserError(
                f"{path}: tensor {their_name[:60]} is not one of a {architecture.name} model"
            )
        name = f"{names[part]}.{kind}"
        if layer is not None:
            name = f"model.layers.{int(layer)}.{name}"
        n_heads = rotated_heads.get(part, 0)
        if n_heads and (not tensor.shape or tensor.shape[0] % (2 * n_heads)):
            raise UserError(
                f"{path}: tensor {their_name} has the shape {tensor.shape}; expected a multiple of "
                f"{2 * n_heads} rows, for {n_heads} heads"
            )
        read = functools.partial(_read, path, tensor, n_heads)
        tensors[name] = Tensor(tensor.shape, np.dtype(np.float32), read)
    return tensors


def interleaved_heads(architecture: GgufArchitecture, config: Mapping[str, Any]) -> dict[str, int]:
    """Return the tensors of a layer whose rows are interleaved, and how many heads each has.

    Args:
        architecture: The architecture.
        config: The fields of a `config.json`.
    """
    if not architecture.interleaved:
        return {}
    return {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}


def interleave(values: np.ndarray, n_heads: int) -> np.ndarray:
    """Return queries' or keys' rows as a file of an interleaved architecture has them.

    Args:
        values: A weight or bias as Hugging Face has it, whose rows are those of the heads.
        n_heads: How many heads there are.
    """
    halves = values.reshape(n_heads, 2, -1, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)


def _rope_factors(path: str, stored: dict[str, GgufTensor]) -> np.ndarray | None:
    """Return what a file divides the RoPE frequencies by, if anything."""
    tensor = stored.get(ROPE_FACTORS)
    if tensor is None:
        return None
    if tensor.type_id != 0 or len(tensor.shape) != 1:
        raise UserError(f"{path}: tensor {ROPE_FACTORS}: expected a list of float32")
    return _read(path, tensor, 0, (slice(None),))


def _n_bytes(path: str, name: str, type_id: int, shape: tuple[int, ...]) -> int:
    """Return the bytes of a tensor; raise a UserError for a type that cannot be read."""
    n_elements = math.prod(shape)
    if type_id in _PLAIN:
        return n_elements * _PLAIN[type_id].itemsize
    gguf, kind = _quantization(path, name, type_id)
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    if not shape or shape[-1] % block:
        raise UserError(
            f"{path}: tensor {name} has the shape {shape}; expected rows of {block} times n for "
            f"type {kind.name}"
        )
    return n_elements // block * block_bytes


def _quantization(path: str, name: str, type_id: int) -> tuple[Any, Any]:
    """Return the `gguf` package and its name of a quantized type."""
    try:
        gguf = importlib.import_module("gguf")
    except ImportError:
        raise UserError(
            f"{path}: tensor {name} is quantized, which needs the package gguf: "
            "run launch/setup.sh gguf"
        ) from None
    try:
        kind = gguf.GGMLQuantizationType(type_id)
    except ValueError:
        raise UserError(
            f"{path}: tensor {name} is of type {type_id}, which the installed package gguf does "
            "not know"
        ) from None
    try:
        _, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        gguf.quants.dequantize(np.zeros((1, block_bytes), np.uint8), kind)
    except (KeyError, NotImplementedError):
        raise UserError(
            f"{path}: tensor {name} is of type {kind.name}, which the package gguf cannot "
            "dequantize; expected a file with another quantization, such as Q8_0"
        ) from None
    return gguf, kind


def _read(path: str, tensor: GgufTensor, n_heads: int, index: Index) -> np.ndarray:
    """Read a part of a tensor, float32.

    Args:
        path: The file.
        tensor: Where the tensor is in it.
        n_heads: The heads along the first axis if their rows are interleaved, else 0.
        index: The part.
    """
    shape = tensor.shape
    if math.prod(shape) == 0:
        return np.zeros(shape, np.float32)[index]
    if tensor.type_id in _PLAIN:
        # The file is mapped for this one read: pages of a mapping that stays count as our memory.
        values: np.ndarray = np.memmap(path, _PLAIN[tensor.type_id], "r", tensor.offset, shape)
    else:
        gguf, kind = _quantization(path, "", tensor.type_id)
        block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        stored = (*shape[:-1], shape[-1] // block * block_bytes)
        packed = np.memmap(path, np.uint8, "r", tensor.offset, stored)
        values = gguf.quants.dequantize(packed, kind).reshape(shape)
    if n_heads:
        pairs = values.reshape(n_heads, -1, 2, *shape[1:])
        values = pairs.swapaxes(1, 2).reshape(shape)
    return np.array(values[index], np.float32)
