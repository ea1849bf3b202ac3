"""From logical axes to partitions, and batches of which a process builds only its rows."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from ift_jax.config.schema import MeshConfig
from ift_jax.sharding.batch_placement import put_batch
from ift_jax.sharding.mesh import make_mesh
from ift_jax.sharding.rules import batch_shards, partition_spec

SIZES = dict(data=2, fsdp=4, fsdp_line=1, expert=1, tensor=2, sequence=1)


@pytest.mark.parametrize(
    ("axes", "shape", "wanted"),
    [
        (("embed", "mlp"), (16, 8), P("fsdp", "tensor")),
        (("batch", "length"), (8, 32), P(("data", "fsdp"), None)),
        # An axis is sharded along as many of its mesh axes as divide its size.
        (("batch", "length"), (2, 32), P("data", None)),
        (("embed", "kv_heads"), (16, 1), P("fsdp", None)),
        ((None, "norm"), (16, 8), P(None, None)),
    ],
)
def test_the_partition_of_logical_axes(axes, shape, wanted):
    assert partition_spec(axes, shape, SIZES) == wanted


def test_a_name_without_a_rule_is_a_mistake():
    with pytest.raises(KeyError, match="embd"):
        partition_spec(("embd",), (8,), SIZES)


def test_rows_merge_with_positions_only_where_devices_divide_them():
    assert batch_shards(3) == 1  # Without a mesh.
    with jax.set_mesh(make_mesh(MeshConfig(data=4, tensor=2))):
        assert [batch_shards(8), batch_shards(6)] == [4, 0]
    with jax.set_mesh(make_mesh(MeshConfig(data=4, sequence=2))):
        assert batch_shards(8) == 0


def test_a_batch_is_built_once_and_cut_by_rows_and_positions():
    mesh = make_mesh(MeshConfig(data=4, sequence=2))
    tokens = np.arange(8 * 6, dtype=np.int32).reshape(8, 6)
    row_ids = np.arange(8, dtype=np.int32)
    calls = []

    def build_rows(rows):
        calls.append(rows)
        return {"tokens": tokens[rows], "row_ids": row_ids[rows]}

    batch = put_batch(mesh, {"tokens": (8, 6), "row_ids": (8,)}, build_rows)
    assert calls == [slice(0, 8)]  # This process holds every device.
    np.testing.assert_array_equal(batch["tokens"], tokens)
    np.testing.assert_array_equal(batch["row_ids"], row_ids)
    assert {shard.data.shape for shard in batch["tokens"].addressable_shards} == {(2, 3)}
    assert {shard.data.shape for shard in batch["row_ids"].addressable_shards} == {(2,)}
