"""GGUF files as folders of Hugging Face would be: config, tokenizer, dequantised tensors.

Of the Llama architecture (SmolLM2 and Mistral are such) with a byte-level BPE tokenizer. What a
file says that is not understood is refused by name.
"""

import functools
import importlib
import importlib.resources
import json
import tomllib
from typing import Any

import numpy as np
import tokenizers

from ift_jax.errors import UserError
from ift_jax.interop.safetensors_files import Index, Tensor
from ift_jax.text.tokenizers.pretoken_cache import SPLITS

_FILE = importlib.resources.files(__package__) / "gguf.toml"
_TABLES = tomllib.loads(_FILE.read_text("utf-8"))
_NAMES, _PRE = _TABLES["tensors"], _TABLES["pre"]
_CONTROL, _USER_DEFINED = 3, 4  # Of tokenizer.ggml.token_type.


def open_gguf(path: str) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, bytes]]:
    """A file's fields of a config.json, tensors by Hugging Face names (float32), tokenizer files.

    Raises:
        UserError: the `gguf` package is absent, or the file is of another architecture, or holds
            something that is not understood.
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
    kind = metadata.get("general.architecture")
    if kind != "llama":
        raise UserError(f"{path}: general.architecture is {kind!r}; expected 'llama'")
    fields = _config(metadata, path)
    heads = {"attn_q": fields["num_attention_heads"], "attn_k": fields["num_key_value_heads"]}
    tensors = {}
    for tensor in reader.tensors:
        block, _, rest = tensor.name.rpartition("blk.")[2].rpartition(".")
        layer, _, part = block.rpartition(".")
        if part not in _NAMES or rest not in ("weight", "bias"):
            raise UserError(f"{path}: tensor {tensor.name} is not one of a Llama model")
        name = f"model.layers.{layer}.{_NAMES[part]}" if layer else _NAMES[part]
        shape = tuple(int(n) for n in reversed(tensor.shape))
        read = functools.partial(_read, gguf, tensor, shape, heads.get(part, 0))
        tensors[f"{name}.{rest}"] = Tensor(shape, np.dtype(np.float32), read)
    embedding = tensors.get("model.embed_tokens.weight")
    fields["vocab_size"] = embedding.shape[0] if embedding else 0
    fields["tie_word_embeddings"] = "lm_head.weight" not in tensors
    return fields, tensors, _tokenizer_files(metadata, path)


def _read(gguf: Any, tensor: Any, shape: tuple[int, ...], heads: int, index: Index) -> np.ndarray:
    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(shape)
    if heads:
        # GGUF interleaves the two halves of a head that RoPE pairs; here they are side by side.
        values = values.reshape(heads, -1, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)
    return np.array(values[index], np.float32)


def _config(metadata: dict[str, Any], path: str) -> dict[str, Any]:
    def get(name: str, default: Any = None) -> Any:
        value = metadata.get(f"llama.{name}", default)
        if value is None:
            raise UserError(f"{path}: no field llama.{name}")
        return value

    for name, value in metadata.items():
        if name.startswith(("llama.rope.scaling", "llama.expert")) and value not in ("none", 0):
            raise UserError(f"{path}: {name} = {value!r} is not supported")
    fields = {theirs: get(ours) for ours, theirs in _TABLES["fields"].items()}
    heads = fields["num_attention_heads"]
    head_dim = get("attention.key_length", fields["hidden_size"] // heads)
    if get("rope.dimension_count", head_dim) != head_dim:
        raise UserError(f"{path}: llama.rope.dimension_count: expected the head's {head_dim}")
    return fields | {
        "model_type": "llama",
        "num_key_value_heads": get("attention.head_count_kv", heads),
        "head_dim": head_dim,
        # Stored in single precision: 1e-05 comes back as 9.999999747378752e-06.
        "rms_norm_eps": float(f"{get('attention.layer_norm_rms_epsilon'):.7g}"),
        "rope_theta": get("rope.freq_base", 10_000.0),
    }


def _tokenizer_files(metadata: dict[str, Any], path: str) -> dict[str, bytes]:
    def get(name: str, default: Any = None) -> Any:
        return metadata.get(f"tokenizer.ggml.{name}", default)

    if get("model") != "gpt2" or get("pre") not in _PRE:
        raise UserError(
            f"{path}: tokenizer.ggml.model is {get('model')!r} with pre {get('pre')!r}; expected "
            f"'gpt2' with one of {', '.join(_PRE)}"
        )
    tokens, kinds, pre = get("tokens"), get("token_type"), _PRE[get("pre")]
    last = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    last["use_regex"] = "digits" not in pre
    words = [SPLITS[pre["digits"]]] if "digits" in pre else pre["words"]
    definition = {
        "model": {
            "type": "BPE",
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": get("merges"),
            "ignore_merges": pre["whole_words"],
        },
        "normalizer": pre.get("normalizer"),
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*words, last]},
        "decoder": last,
    }
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(definition))
    for kind, special in ((_CONTROL, True), (_USER_DEFINED, False)):
        of_kind = [token for token, own in zip(tokens, kinds, strict=True) if own == kind]
        added = [tokenizers.AddedToken(t, special=special, normalized=False) for t in of_kind]
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(added)
    fields: dict[str, Any] = {"add_bos_token": bool(get("add_bos_token", False))}
    for name, theirs in {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}.items():
        if (token := get(f"{theirs}_token_id")) is not None:
            fields[f"{name}_token"] = tokens[token]
    files = {
        "tokenizer.json": tokenizer.to_str(),
        "tokenizer_config.json": json.dumps(fields, ensure_ascii=False),
    }
    if template := metadata.get("tokenizer.chat_template"):
        files["chat_template.jinja"] = template
    return {name: text.encode() for name, text in files.items()}
