"""GGUF files written without the `gguf` package, whole or with any fault."""

import struct
from typing import Any

import numpy as np

# The types of fields: number, and struct format.
U32, I32, F32, BOOL, STRING, ARRAY, U64 = 4, 5, 6, 7, 8, 9, 10
_CODES = {U32: "I", I32: "i", F32: "f", U64: "Q"}

SIZES = {
    "general.architecture": "llama",
    "llama.block_count": 1,
    "llama.context_length": 128,
    "llama.embedding_length": 16,
    "llama.feed_forward_length": 24,
    "llama.attention.head_count": 2,
    "llama.attention.head_count_kv": 1,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 500_000.0,
}


def byte_letters() -> list[str]:
    """GPT-2's letters of the 256 bytes: printable Latin-1 as itself, the rest from U+0100."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in shown]
    letters = {byte: chr(byte) for byte in shown}
    letters |= {byte: chr(256 + i) for i, byte in enumerate(rest)}
    return [letters[byte] for byte in range(256)]


TOKENS = ["<|end|>", "<|user|>", *byte_letters(), "ab", "abc"]
TOKENIZER = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "gpt-2",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.token_type": [3, 3, *[1] * (len(TOKENS) - 2)],
    "tokenizer.ggml.merges": ["a b", "ab c"],
    "tokenizer.ggml.eos_token_id": 0,
    "tokenizer.chat_template": "{{ messages }}",
}


def weights(head_dim: int = 8, n_layers: int = 1) -> dict[str, np.ndarray]:
    """Random weights of the model of `SIZES`, by llama.cpp's names."""
    shapes = {"token_embd": (len(TOKENS), 16), "output_norm": (16,)}
    for layer in range(n_layers):
        shapes |= {
            f"blk.{layer}.{name}": shape
            for name, shape in {
                "attn_norm": (16,),
                "ffn_norm": (16,),
                "attn_q": (2 * head_dim, 16),
                "attn_k": (head_dim, 16),
                "attn_v": (head_dim, 16),
                "attn_output": (16, 2 * head_dim),
                "ffn_gate": (24, 16),
                "ffn_up": (24, 16),
                "ffn_down": (16, 24),
            }.items()
        }
    rng = np.random.default_rng(0)
    return {
        f"{name}.weight": rng.normal(size=shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def packed_string(text: str | bytes) -> bytes:
    """A string as the file has it."""
    content = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(content)) + content


def _type_of(value: Any) -> int:
    if isinstance(value, bool):
        return BOOL
    if isinstance(value, int):
        return I32 if value < 0 else U32 if value < 2**32 else U64
    return F32 if isinstance(value, float) else STRING


def _packed(type_id: int, value: Any) -> bytes:
    if type_id == STRING:
        return packed_string(value)
    if type_id == BOOL:
        return bytes([value])
    return struct.pack("<" + _CODES[type_id], value)


def packed_field(name: str, value: Any) -> bytes:
    """A field as the file has it."""
    start = packed_string(name)
    if not isinstance(value, list):
        type_id = _type_of(value)
        return start + struct.pack("<I", type_id) + _packed(type_id, value)
    # A list of numbers without a negative one is of type I32 too, as token types are.
    type_id = _type_of(value[0]) if value else STRING
    type_id = I32 if type_id == U32 else type_id
    items = b"".join(_packed(type_id, item) for item in value)
    return start + struct.pack("<IIQ", ARRAY, type_id, len(value)) + items


def gguf_bytes(
    fields: dict[str, Any],
    tensors: dict[str, np.ndarray],
    *,
    type_ids: dict[str, int] | None = None,
    alignment: int = 32,
) -> bytes:
    """The bytes of a file of float32 tensors.

    Args:
        fields: The fields by name.
        tensors: The tensors by name.
        type_ids: The types that the file gives to tensors, where they differ from float32.
        alignment: What the file says the data are aligned to, if not 32.
    """
    if alignment != 32:
        fields = fields | {"general.alignment": alignment}
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(fields))
    head += b"".join(packed_field(name, value) for name, value in fields.items())
    data = b""
    for name, values in tensors.items():
        shape = values.shape[::-1]
        head += packed_string(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        head += struct.pack("<IQ", (type_ids or {}).get(name, 0), len(data))
        data += values.tobytes()
        data += bytes(-len(data) % alignment)
    return head + bytes(-len(head) % alignment) + data
