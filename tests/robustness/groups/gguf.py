"""GGUF files of a small Llama model; the reader of the `gguf` package judges."""

import importlib.util
import math
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np

from tests.interop import gguf_files
from tests.robustness.byte_mutations import spoiled_bytes
from tests.robustness.group import Case, Group
from tests.robustness.json_mutations import ODD_VALUES, spoiled_value

_FIELDS = gguf_files.SIZES | gguf_files.TOKENIZER
_EXTRA = {
    "llama.rope.scale_linear": 2.0,
    "llama.rope.scaling.type": "linear",
    "llama.rope.scaling.factor": 4.0,
    "llama.expert_count": 0,
    "llama.vocab_size": len(gguf_files.TOKENS),
    "llama.rope.dimension_count": 8,
    "tokenizer.ggml.bos_token_id": 1,
    "general.name": "small",
    "general.sampling.top_k": 40,
}


def _as_field(value: Any) -> Any:
    """The nearest value that a field of GGUF can hold."""
    if isinstance(value, list):
        items = [_as_field(item) for item in value]
        same = [item for item in items if type(item) is type(items[0]) is not list]
        return [min(item, 2**31 - 1) if type(item) is int else item for item in same]
    if isinstance(value, float) and abs(value) > 3e38:
        return math.copysign(math.inf, value)
    if isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return max(-(2**31), min(value, 2**64 - 1))
    text = value if isinstance(value, str) else repr(value)
    return text.encode("utf-8", "replace").decode()


def _spoiled_fields(fields: dict[str, Any], rng: random.Random) -> tuple[dict[str, Any], str]:
    """Change values of fields, or add a field."""
    if rng.random() < 0.2:
        name = rng.choice(("llama.rope.new", "tokenizer.ggml.new", "new.field", "llama.new"))
        odd = rng.choice(ODD_VALUES)
        return fields | {name: _as_field(odd)}, f"{name} = {odd!r}"
    changed, change = spoiled_value(fields, rng)
    if not isinstance(changed, dict):
        return {}, "no fields"
    return {name: _as_field(value) for name, value in changed.items()}, change


def _spoiled_length(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Change the length of a string or a list, which all stand in the header."""
    name = rng.choice(sorted(_FIELDS)).encode()
    place = content.find(name)
    if place < 0:
        return content, ""
    place += rng.choice((-8, len(name), len(name) + 4, len(name) + 8))
    number = rng.choice((0, 1, 2**16, 2**32 - 1, 10**12, 2**60, 2**63, 2**64 - 1))
    field = struct.pack("<Q", number)
    return content[:place] + field + content[place + 8 :], f"{number} at {place}, by {name!r}"


class Gguf(Group):
    """A file is opened, its config and tokenizer are made, and every tensor is read."""

    def make(self, rng: random.Random, folder: Path) -> Case:
        extra = {name: value for name, value in _EXTRA.items() if rng.random() < 0.3}
        fields, tensors = _FIELDS | extra, gguf_files.weights()
        change, kind = "", rng.random()
        if kind < 0.4:
            fields, change = _spoiled_fields(fields, rng)
        elif kind < 0.5:
            name = rng.choice(sorted(tensors))
            other = rng.choice((np.ones((16, 16)), np.ones(3), np.ones((2, 2, 2, 2)), np.ones(())))
            tensors[rng.choice((name, "rope_freqs.weight", "blk.9.attn_q.weight"))] = other.astype(
                np.float32
            )
            change = f"a tensor of shape {other.shape}"
        type_ids = {rng.choice(sorted(tensors)): rng.randrange(45)} if kind > 0.95 else None
        content = gguf_files.gguf_bytes(fields, tensors, type_ids=type_ids)
        if 0.5 < kind < 0.75:
            content, change = spoiled_bytes(content, rng, header=len(content) // 8)
        elif 0.75 < kind < 0.93:
            content, change = _spoiled_length(content, rng)
        path = folder / "m.gguf"
        path.write_bytes(content)
        return Case(change or str(type_ids or ""), path)

    def read(self, case: Case) -> Any:
        from ift_jax.interop.gguf import open_gguf
        from ift_jax.interop.hugging_face_config import from_hugging_face
        from ift_jax.text.tokenizers.load import tokenizer_from_files

        model = open_gguf(str(case.path))
        config = from_hugging_face(model.fields, str(case.path))
        tokenizer_from_files(model.tokenizer_files, str(case.path)).encode_with_controls(
            "abc<|user|> abcab \u00e9"
        )
        for tensor in model.tensors.values():
            tensor.read((slice(None),) * len(tensor.shape))
        return config

    def complaint(self, case: Case, value: Any) -> str:
        if importlib.util.find_spec("gguf") is None:
            return ""
        import gguf

        from ift_jax.interop.gguf_file import read_gguf

        try:
            reader = gguf.GGUFReader(case.path)
        except (ValueError, KeyError, IndexError) as error:
            return f"gguf refuses it: {error}"
        theirs = {n: f.contents() for n, f in reader.fields.items() if not n.startswith("GGUF.")}
        ours = read_gguf(str(case.path), lambda name, type_id, shape: 4 * int(np.prod(shape)))
        # NaN differs from itself; an empty list has no type, and the package returns None for it.
        same = repr(ours.fields) == repr({n: v if v is not None else [] for n, v in theirs.items()})
        return "" if same else f"gguf reads {theirs}; we read {ours.fields}"[:1000]


GROUP = Gguf()
