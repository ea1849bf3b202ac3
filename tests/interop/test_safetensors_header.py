"""A safetensors file is accepted if, and only if, the reference implementation accepts it."""

import json

import numpy as np
import pytest

from ift_jax.errors import UserError
from ift_jax.interop.safetensors_files import open_safetensors
from ift_jax.interop.safetensors_header import read_header

SIXTEEN = bytes(range(16))


def tensor(begin, end, shape=(2,), dtype="F32", **fields):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end], **fields}


PAIR = {"a": tensor(0, 8), "b": tensor(8, 16)}
GOOD = {
    "two tensors": (PAIR, SIXTEEN),
    "the other way round in the header": (dict(reversed(PAIR.items())), SIXTEEN),
    "an unknown key of a tensor": (PAIR | {"a": tensor(0, 8, note=1)}, SIXTEEN),
    "no metadata": (PAIR | {"__metadata__": None}, SIXTEEN),
    "no element": (PAIR | {"z": tensor(8, 8, (0, 5))}, SIXTEEN),
    "a scalar": ({"s": tensor(0, 4, ()), "a": tensor(4, 12), "b": tensor(12, 16, (1,))}, SIXTEEN),
    "no tensor": ({}, b""),
}
BAD = {
    "overlap": (PAIR | {"b": tensor(4, 12)}, SIXTEEN, "b begin at byte 4 and overlap"),
    "the same range": (PAIR | {"b": tensor(0, 8)}, SIXTEEN[:8], "overlap those of another tensor"),
    "a gap": (PAIR | {"b": tensor(12, 20)}, bytes(20), "b begin at byte 12 and leave a gap"),
    "a gap in front": ({"a": tensor(8, 16)}, SIXTEEN, "a begin at byte 8 and leave a gap"),
    "hidden bytes": (PAIR, bytes(17), "1 bytes at its end belong to no tensor"),
    "cut short": (PAIR, SIXTEEN[:-1], "it ends before b does; was it copied wholly"),
    "empty with data": ({}, bytes(8), "8 bytes at its end belong to no tensor"),
    "a range of another length": (PAIR | {"b": tensor(8, 12)}, SIXTEEN[:12], "expected 8 bytes"),
    "backwards": (PAIR | {"b": tensor(16, 8)}, SIXTEEN, r"data_offsets is \[16, 8\]"),
    "three offsets": (PAIR | {"a": {**tensor(0, 8), "data_offsets": [0, 8, 9]}}, SIXTEEN, "two"),
    "a float": (PAIR | {"a": tensor(0.0, 8)}, SIXTEEN, "expected two whole numbers"),
    "a negative shape": (PAIR | {"a": tensor(0, 8, (-2,))}, SIXTEEN, r"shape is \[-2\]"),
    "a shape of 2^124": (PAIR | {"a": tensor(0, 8, (2**62, 2**62))}, SIXTEEN, "elements"),
    "an offset of 10^24": (PAIR | {"a": tensor(0, 10**24)}, SIXTEEN, "two whole numbers"),
    "an unknown dtype": (PAIR | {"a": tensor(0, 8, dtype="Q32")}, SIXTEEN, "dtype is 'Q32'"),
    "a list for a tensor": (PAIR | {"a": [1]}, SIXTEEN, r"a is \[1\]; expected an object"),
    "numbers as metadata": (PAIR | {"__metadata__": {"n": 1}}, SIXTEEN, "__metadata__ is"),
    "half a character": (PAIR | {"\ud800": tensor(16, 16, (0,))}, SIXTEEN, "half of a surrogate"),
}  # fmt: skip


def write(folder, header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    content = len(text).to_bytes(8, "little") + text + data
    (folder / "model.safetensors").write_bytes(content)
    return content


def reference(content):
    safetensors = pytest.importorskip("safetensors", reason="the reference implementation")
    try:
        return {name: bytes(value["data"]) for name, value in safetensors.deserialize(content)}
    except safetensors.SafetensorError:
        return None


@pytest.mark.parametrize("name", GOOD)
def test_a_good_file_is_read_as_by_the_reference(name, tmp_path):
    content = write(tmp_path, *GOOD[name])
    read = {
        name: tensor.read((slice(None),) * len(tensor.shape)).tobytes()
        for name, tensor in open_safetensors(str(tmp_path)).items()
    }
    assert read == reference(content)


@pytest.mark.parametrize("name", BAD)
def test_what_the_reference_refuses_is_refused_by_name(name, tmp_path):
    header, data, message = BAD[name]
    content = write(tmp_path, header, data)
    assert reference(content) is None
    with pytest.raises(UserError, match=message) as caught:
        open_safetensors(str(tmp_path))
    assert str(caught.value).startswith(str(tmp_path / "model.safetensors"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        b"\xff" * 16,
        (2**63).to_bytes(8, "little") + b"{}",
        b"\x02" + b"\0" * 7 + b"[]",
    ],
)
def test_a_header_that_is_none_is_refused(content, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(content)
    assert reference(content) is None
    with pytest.raises(UserError, match="not a whole safetensors file"):
        open_safetensors(str(tmp_path))


def test_a_name_that_occurs_twice_is_refused_though_the_reference_takes_the_last(tmp_path):
    a = json.dumps(tensor(0, 8))
    content = write(tmp_path, f'{{"a": {a}, "a": {a}}}'.encode(), SIXTEEN[:8])
    assert reference(content) is not None
    with pytest.raises(UserError, match="'a' occurs twice"):
        open_safetensors(str(tmp_path))


def shards(folder, weight_map):
    header = json.dumps({"a": tensor(0, 8)}).encode()
    for number in (1, 2):
        content = len(header).to_bytes(8, "little") + header + np.full(2, number, "f4").tobytes()
        (folder / f"{number}.safetensors").write_bytes(content)
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": weight_map}))
    return path


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": "1.safetensors", "b": "2.safetensors"}, "two shards hold a; expected each .* once"),
        ({"b": "1.safetensors"}, "names b, which 1.safetensors does not hold"),
        ({"a": ["1.safetensors"]}, "weight_map is .*; expected an object of which each value is"),
        ([], r"weight_map is \[\]; expected an object"),
    ],
)
def test_an_index_that_does_not_fit_its_shards_is_refused(weight_map, message, tmp_path):
    path = shards(tmp_path, weight_map)
    with pytest.raises(UserError, match=message) as caught:
        open_safetensors(str(tmp_path))
    assert str(caught.value).startswith(str(path))


def test_half_of_a_surrogate_pair_is_refused_as_the_reference_does(tmp_path):
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], "note": "\ud800"}
    header = json.dumps({"a": entry}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(UserError, match="its header holds half of a surrogate pair"):
        read_header(str(path))
