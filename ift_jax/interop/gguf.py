"""GGUF files as the Hugging Face folders that they come from: config, tokenizer and tensors.

Files of the Llama architecture (SmolLM2 and Mistral use it too) with a byte-level BPE tokenizer are
read; tensors are dequantized to float32. What is not understood in a file is refused by name.
"""

import functools
import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ift_jax.errors import UserError
from ift_jax.interop.gguf_tokenizer import tokenizer_files
from ift_jax.interop.safetensors_files import Index, Tensor

# Their tensors -> Hugging Face's; those of layer i are in "blk.{i}." and in "model.layers.{i}.".
TENSOR_NAMES: dict[str, str] = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# Their fields, which begin with "llama." -> those of a config.json.
FIELD_NAMES: dict[str, str] = {
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "context_length": "max_position_embeddings",
}


class GgufModel(NamedTuple):
    """What a GGUF file holds.

    Attributes:
        fields: The fields of a `config.json`.
        tensors: Tensors by the names that Hugging Face gives them, float32.
        tokenizer_files: The tokenizer's files: name -> content.
    """

    fields: dict[str, Any]
    tensors: dict[str, Tensor]
    tokenizer_files: dict[str, bytes]


def open_gguf(path: str) -> GgufModel:
    """Open a file; tensors are read when they are asked for.

    Raises:
        UserError: The `gguf` package is not installed, the file has another architecture, or it
            holds something that is not understood.
    """
    try:
        gguf = importlib.import_module("gguf")
    except ImportError:
        raise UserError(f"{path}: needs the package gguf: run launch/setup.sh gguf") from None
    try:
        reader = gguf.GGUFReader(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (ValueError, IndexError) as error:
        raise UserError(f"{path}: not a whole GGUF file: {error}") from error
    metadata = {name: field.contents() for name, field in reader.fields.items()}
    architecture = metadata.get("general.architecture")
    if architecture != "llama":
        raise UserError(f"{path}: general.architecture is {architecture!r}; expected 'llama'")
    fields = _config_fields(metadata, path)
    tensors = _tensors(gguf, reader, fields, path)
    embedding = tensors.get("model.embed_tokens.weight")
    fields["vocab_size"] = embedding.shape[0] if embedding else 0
    fields["tie_word_embeddings"] = "lm_head.weight" not in tensors
    return GgufModel(fields, tensors, tokenizer_files(metadata, path))


def _config_fields(metadata: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return the fields of a `config.json`, except those that the tensors decide."""

    def get(name: str, default: Any = None) -> Any:
        value = metadata.get(f"llama.{name}", default)
        if value is None:
            raise UserError(f"{path}: no field llama.{name}")
        return value

    for name, value in metadata.items():
        if name.startswith(("llama.rope.scaling", "llama.expert")) and value not in ("none", 0):
            raise UserError(f"{path}: {name} = {value!r} is not supported")
    fields = {name: get(gguf_name) for gguf_name, name in FIELD_NAMES.items()}
    n_heads = fields["num_attention_heads"]
    head_dim = get("attention.key_length", fields["hidden_size"] // n_heads)
    if get("rope.dimension_count", head_dim) != head_dim:
        raise UserError(f"{path}: llama.rope.dimension_count: expected the head's {head_dim}")
    epsilon = get("attention.layer_norm_rms_epsilon")
    return fields | {
        "model_type": "llama",
        "num_key_value_heads": get("attention.head_count_kv", n_heads),
        "head_dim": head_dim,
        # Stored in single precision: 1e-05 comes back as 9.999999747378752e-06.
        "rms_norm_eps": float(f"{epsilon:.7g}"),
        "rope_theta": get("rope.freq_base", 10_000.0),
    }


def _tensors(gguf: Any, reader: Any, fields: Mapping[str, Any], path: str) -> dict[str, Tensor]:
    """Return the tensors by the names that Hugging Face gives them."""
    rotated_heads = {
        "attn_q": fields["num_attention_heads"],
        "attn_k": fields["num_key_value_heads"],
    }
    tensors = {}
    for tensor in reader.tensors:
        below_block = tensor.name.rpartition("blk.")[2]
        module, _, kind = below_block.rpartition(".")  # "3.attn_q", "weight"
        layer, _, part = module.rpartition(".")  # "3", "attn_q"
        if part not in TENSOR_NAMES or kind not in ("weight", "bias"):
            raise UserError(f"{path}: tensor {tensor.name} is not one of a Llama model")
        name = f"{TENSOR_NAMES[part]}.{kind}"
        if layer:
            name = f"model.layers.{layer}.{name}"
        shape = tuple(int(n) for n in reversed(tensor.shape))
        read = functools.partial(_read, gguf, tensor, shape, rotated_heads.get(part, 0))
        tensors[name] = Tensor(shape, np.dtype(np.float32), read)
    return tensors


def _read(gguf: Any, tensor: Any, shape: tuple[int, ...], n_heads: int, index: Index) -> np.ndarray:
    """Read a part of a tensor.

    Args:
        gguf: The package.
        tensor: The package's view of the tensor.
        shape: The shape in Hugging Face's order of axes.
        n_heads: The heads along the first axis if RoPE turns them, else 0.
        index: The part.
    """
    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(shape)
    if n_heads:
        # GGUF interleaves the two halves of a head that RoPE pairs; Hugging Face has them side by
        # side.
        pairs = values.reshape(n_heads, -1, 2, *shape[1:])
        values = pairs.swapaxes(1, 2).reshape(shape)
    return np.array(values[index], np.float32)
