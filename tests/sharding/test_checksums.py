"""Checksums notice every changed bit, and are the same wherever an array is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ift_jax.sharding.checksums import checksum, checksums, host_checksum, tree_checksum

DTYPES = ["float32", "bfloat16", "int32", "uint8"]
SHAPES = [(), (7,), (4, 6), (2, 8, 3)]


def array(shape, dtype):
    values = np.random.default_rng(len(shape)).integers(0, 200, shape)
    return np.asarray(values).astype(jnp.dtype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_host_and_device_agree(shape, dtype):
    values = array(shape, dtype)
    assert int(jax.jit(checksum)(jnp.asarray(values))) == host_checksum(values)


def test_the_definition_by_hand():
    """MurmurHash3's finalizer of bits ^ (index * golden ratio), added up in Python integers."""
    total = 0
    for i, value in enumerate([1.5, -2.0, 0.0]):
        word = int(np.float32(value).view(np.uint32)) ^ (i * 0x9E3779B9 & 0xFFFFFFFF)
        word = word * 0x85EBCA6B & 0xFFFFFFFF
        word = (word ^ word >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
        total += word ^ word >> 16
    assert host_checksum(np.float32([1.5, -2.0, 0.0])) == total % 2**32


def test_a_long_array_is_hashed_piece_by_piece():
    values = np.random.default_rng(0).standard_normal((3, 50_000), np.float32)
    assert host_checksum(values) == int(jax.jit(checksum)(values))
    assert host_checksum(values.T) == int(jax.jit(checksum)(values.T))  # Not contiguous.


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_single_bit_counts(dtype):
    values = array((3, 5), dtype)
    expected = host_checksum(values)
    for bit in range(8 * values.nbytes):
        flipped = bytearray(values.tobytes())
        flipped[bit // 8] ^= 1 << bit % 8
        changed = np.frombuffer(bytes(flipped), values.dtype).reshape(values.shape)
        assert host_checksum(changed) != expected


def test_values_that_change_places_count():
    values = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    others = [values[::-1], values[:, ::-1], np.roll(values, 1)]
    assert len({host_checksum(other) for other in [values, *others]}) == 4


def test_shards_give_the_checksum_of_the_whole(monkeypatch):
    mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("x", "y"))
    values = np.random.default_rng(0).standard_normal((8, 6), np.float32)
    tree = {"a": {"b": values, "c": values[0]}, "empty": {}}
    expected = checksums(tree)
    assert list(expected) == ["a"]
    assert expected["a"].tolist() == [host_checksum(values), host_checksum(values[0])]
    monkeypatch.setattr("ift_jax.sharding.checksums._is_in_host_memory", lambda array: False)
    for spec in (PartitionSpec("x", "y"), PartitionSpec("y"), PartitionSpec()):
        placed = jax.device_put(
            tree,
            {
                "a": {"b": NamedSharding(mesh, spec), "c": NamedSharding(mesh, PartitionSpec())},
                "empty": {},
            },
        )
        np.testing.assert_array_equal(checksums(placed)["a"], expected["a"])


def test_a_flipped_sign_changes_the_checksum_of_a_tree():
    """The factor of the second array was even, so the highest bit of its numbers was lost."""
    tree = {name: jnp.ones(3) for name in "abcd"}
    sums = {int(tree_checksum(tree))}
    for name in tree:
        sums.add(int(tree_checksum({**tree, name: tree[name].at[1].multiply(-1)})))
    assert len(sums) == 5
