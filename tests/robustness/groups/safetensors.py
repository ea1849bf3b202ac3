"""Safetensors files, alone and in shards; the `safetensors` package judges."""

import importlib
import importlib.util
import json
import random
from pathlib import Path
from typing import Any

import numpy as np

from tests.robustness.byte_mutations import spoiled_bytes
from tests.robustness.group import Case, Group
from tests.robustness.json_mutations import spoiled_json

_SHAPES = {"a.weight": (2, 3), "b": (), "c": (0, 4), "d": (5,)}
_SIZES = {"F32": 4, "F16": 2, "BF16": 2}


def header_and_data(rng: random.Random, names: list[str]) -> tuple[dict[str, Any], bytes]:
    """A good header, whose tensors follow each other in any order, and the data."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}} if rng.random() < 0.8 else {}
    position = 0
    for name in rng.sample(names, len(names)):
        dtype = rng.choice(sorted(_SIZES))
        end = position + int(np.prod(_SHAPES[name])) * _SIZES[dtype]
        header[name] = {
            "dtype": dtype,
            "shape": list(_SHAPES[name]),
            "data_offsets": [position, end],
        }
        position = end
    return header, rng.randbytes(position)


def packed(header: bytes, data: bytes) -> bytes:
    """The bytes of a file."""
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data


def spoiled_file(rng: random.Random, names: list[str]) -> tuple[bytes, str]:
    """A file whose header or bytes have a fault."""
    header, data = header_and_data(rng, names)
    kind = rng.random()
    if kind < 0.4:
        text, change = spoiled_json(header, rng)
        return packed(text, data), change
    if kind < 0.6:
        change = _shift_a_range(header, rng, len(data))
        return packed(json.dumps(header).encode(), data), change
    return spoiled_bytes(packed(json.dumps(header).encode(), data), rng, header=300)


def _shift_a_range(header: dict[str, Any], rng: random.Random, n_bytes: int) -> str:
    """Move the range of a tensor, as a file with overlaps, gaps or hidden bytes has it."""
    name = rng.choice([name for name in header if name != "__metadata__"])
    offsets = header[name]["data_offsets"]
    by = rng.choice((-8, -4, -1, 1, 4, 8, n_bytes))
    offsets[0] += by
    offsets[1] += by
    return f"{name} moved by {by}"


class Safetensors(Group):
    """A folder of weights is opened, and every tensor is read."""

    def make(self, rng: random.Random, folder: Path) -> Case:
        if rng.random() < 0.75:
            content, change = spoiled_file(rng, sorted(_SHAPES))
            (folder / "model.safetensors").write_bytes(content)
            return Case(change, folder, ["model.safetensors"])
        weight_map = {}
        shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
        change = ""
        for shard, names in zip(shards, (["a.weight", "b"], ["c", "d"]), strict=True):
            header, data = header_and_data(rng, names)
            (folder / shard).write_bytes(packed(json.dumps(header).encode(), data))
            weight_map |= dict.fromkeys(names, shard)
        index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
        content, change = spoiled_json(index, rng)
        (folder / "model.safetensors.index.json").write_bytes(content)
        return Case(f"index: {change}", folder, shards)

    def read(self, case: Case) -> Any:
        from ift_jax.interop.safetensors_files import open_safetensors

        values = {}
        for name, tensor in open_safetensors(str(case.path)).items():
            everything = (slice(None),) * len(tensor.shape)
            values[name] = (tensor.shape, tensor.read(everything).tobytes())
        return values

    def complaint(self, case: Case, value: Any) -> str:
        if importlib.util.find_spec("safetensors") is None:
            return ""
        reference = importlib.import_module("safetensors")
        theirs = {}
        for file in case.extra:
            try:
                tensors = reference.deserialize((case.path / file).read_bytes())
            except reference.SafetensorError as error:
                return f"safetensors refuses {file}: {error}"
            theirs |= {name: (tuple(t["shape"]), bytes(t["data"])) for name, t in tensors}
        # An index may leave out a shard, but a file is read whole.
        if len(case.extra) == 1 and value != theirs or value.items() - theirs.items():
            return f"safetensors reads {theirs}; we read {value}"
        return ""


GROUP = Safetensors()
