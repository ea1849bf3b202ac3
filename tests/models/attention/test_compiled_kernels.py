"""The kernels compiled for GPUs and TPUs that are not here, inside shard_map."""

import jax
import jax.numpy as jnp
import pytest

from ift_jax.config.schema import MeshConfig
from ift_jax.models.attention.attention import attention
from ift_jax.models.attention.kv import KVPair
from ift_jax.models.attention.mask import AttentionMask, Tokens
from ift_jax.sharding.mesh import make_mesh


def gradient_of(kernel):
    """The gradients of causal attention with a window, a prefix and a soft cap."""

    def loss(q, k, v, segment_ids, positions, prefix):
        tokens = Tokens(segment_ids, positions, prefix)
        mask = AttentionMask.create(tokens, tokens, causal=True, window=256, implementation="auto")
        assert mask.implementation == kernel
        return attention(q, KVPair(k, v), mask, scale=0.1, softcap=30.0).sum()

    return jax.jit(jax.grad(loss, (0, 1, 2)))


def abstract_arguments(n_rows, length, heads, kv_heads, head_dim, sharding=None):
    def array(*shape, dtype=jnp.bfloat16):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    q = array(n_rows, length, heads, head_dim)
    kv = array(n_rows, kv_heads, length, head_dim)
    ints = array(n_rows, length, dtype=jnp.int32)
    return q, kv, kv, ints, ints, array(n_rows, length, dtype=jnp.bool_)


def test_triton_is_lowered_for_cuda():
    """Forward and backward over eight GPUs: Triton's kernels are in the program."""
    gpu = jax.sharding.AbstractDevice("NVIDIA A100-SXM4-80GB", num_cores=None, platform="gpu")
    mesh = make_mesh(MeshConfig(data=2, fsdp=1, tensor=2, sequence=2)).abstract_mesh
    arguments = abstract_arguments(4, 300, 8, 2, 80)
    with jax.sharding.use_abstract_mesh(mesh.update(abstract_device=gpu)):
        traced = gradient_of("triton").trace(*arguments)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("custom_call @__gpu$xla.gpu.triton") == 3
    for kernel in ("forward", "dq", "dkv"):
        assert f'name = "attention_{kernel}_kernel"' in text
    # A device's queries: 2 of 4 rows, half of the length in whole blocks, 4 of 8 heads, padded.
    assert "tensor<2x192x4x128xbf16>" in text


@pytest.mark.slow
@pytest.mark.parametrize("head_dim", [64, 80, 128, 256])
def test_splash_compiles_for_tpu(head_dim):
    """Forward and backward, with an odd length, which is sharded over devices."""
    pytest.importorskip("libtpu")
    from jax.experimental import topologies

    devices = topologies.get_topology_desc(platform="tpu", topology_name="v5p:2x2x1").devices
    mesh = make_mesh(MeshConfig(data=1, tensor=2, sequence=2), devices)
    length = 1500
    with jax.set_mesh(mesh):
        replicated = jax.sharding.NamedSharding(mesh, jax.P())
        arguments = abstract_arguments(2, length, 8, 2, head_dim, replicated)
        text = gradient_of("splash").lower(*arguments).compile().as_text()
    for kernel in ("fwd", "dq", "dkv"):
        assert f"splash_mha_{kernel}_segmented" in text
    # No array of all pairs (booleans or scores) is stored: it may exist only inside a fusion.
    stored = [part for part in text.split("\n\n") if not part.lstrip().startswith("%fused")]
    assert len(stored) > 1
    for n_queries in (length, length // 2):
        assert not any(f"{n_queries},{length}]" in part for part in stored)
