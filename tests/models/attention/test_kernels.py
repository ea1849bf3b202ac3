"""Each implementation of attention against a slow numpy one: forward, and gradients of the dense.

Float32; rows of many blocks of an odd length, packed, with padding. On CPU the Pallas kernels of
splash and triton are interpreted: the same programs, block by block.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ift_jax.config.checks import check
from ift_jax.config.schema import Config, DecoderConfig, MeshConfig
from ift_jax.errors import UserError
from ift_jax.models.attention import reference
from ift_jax.models.attention.attention import attention
from ift_jax.models.attention.implementations import choose_implementation
from ift_jax.models.attention.kv import KVPair
from ift_jax.models.attention.mask import AttentionMask, Tokens, attention_mask
from ift_jax.models.attention.relative_bias import bias_of_pairs
from ift_jax.sharding import rules
from ift_jax.sharding.batch_placement import batch_sharding
from ift_jax.sharding.mesh import make_mesh

ROWS, LENGTH, HEADS, HEAD_DIM = 2, 300, 4, 8
IMPLEMENTATIONS = ("splash", "triton", "blockwise")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Of 32 queries, so that the rows have ten of them, the last one not full."""
    monkeypatch.setattr(reference, "BLOCK_PAIRS", 40 * LENGTH)


def packed(seed, with_prefix, rows=ROWS, length=LENGTH, padding=25):
    """Rows of segments of random lengths, then padding; in the last row nothing but padding."""
    rng = np.random.default_rng(seed)
    segment_ids, positions, prefix = np.zeros((3, rows, length), np.int32)
    for b in range(rows - 1):
        start, segment = 0, 1
        while start < length - padding:
            n = min(int(rng.integers(1, length // 2)), length - padding - start)
            segment_ids[b, start : start + n] = segment
            positions[b, start : start + n] = np.arange(n)
            prefix[b, start : start + int(rng.integers(0, n + 1))] = 1
            start, segment = start + n, segment + 1
        assert segment > 3
    return Tokens(segment_ids, positions, prefix > 0 if with_prefix else None)


def arrays(seed, kv_heads, queries=LENGTH, keys=LENGTH):
    rng = np.random.default_rng(seed)
    q, w = rng.normal(size=(2, ROWS, queries, HEADS, HEAD_DIM)).astype(np.float32)
    k, v = rng.normal(size=(2, ROWS, kv_heads, keys, HEAD_DIM)).astype(np.float32)
    return q, k, v, w.reshape(ROWS, queries, -1)


def numpy_attention(q, k, v, allowed, scale, softcap):
    """Float64, query by query."""
    y = np.zeros(q.shape)
    group = q.shape[2] // k.shape[1]
    for b, i, h in np.ndindex(*q.shape[:3]):
        at = np.flatnonzero(allowed[b, i])
        if at.size:
            scores = k[b, h // group, at].astype(np.float64) @ q[b, i, h] * scale
            scores = softcap * np.tanh(scores / softcap) if softcap else scores
            weights = np.exp(scores - scores.max())
            y[b, i, h] = weights / weights.sum() @ v[b, h // group, at]
    return y.reshape(*q.shape[:2], -1)


def output_and_gradients(implementation, inputs, queries, keys, softcap, **mask_options):
    """The output, and the gradients of its product with fixed weights."""
    q, k, v, w = inputs

    @jax.jit
    def run(q, k, v, queries, keys):
        def call(q, k, v):
            mask = AttentionMask.create(
                queries, keys, implementation=implementation, **mask_options
            )
            assert mask.implementation == implementation
            return attention(q, KVPair(k, v), mask, scale=0.3, softcap=softcap)

        y, pull = jax.vjp(call, q, k, v)
        return y, pull(jnp.asarray(w))

    return jax.tree.map(np.asarray, run(q, k, v, queries, keys))


CASES = {
    "causal": dict(kv_heads=2),
    "one key-value head, soft cap": dict(kv_heads=1, softcap=1.5),
    "prefix": dict(kv_heads=4, prefix=True),
    "window": dict(kv_heads=2, window=20),
    "prefix, window, soft cap": dict(kv_heads=2, prefix=True, window=70, softcap=2.0),
    "both ways": dict(kv_heads=4, causal=False),
}


@pytest.mark.parametrize(
    ("implementation", "case"),
    [(name, case) for name in ("splash", "blockwise") for case in CASES]
    # To which every mask is an interval.
    + [("triton", case) for case in ("causal", "prefix, window, soft cap", "both ways")],
)
def test_kernels_are_the_formula_and_its_gradient(implementation, case):
    options = dict(CASES[case])
    tokens = packed(1, options.pop("prefix", False))
    inputs, softcap = arrays(2, options.pop("kv_heads")), options.pop("softcap", 0.0)
    mask_options = {"causal": True} | options
    y, gradients = output_and_gradients(
        implementation, inputs, tokens, tokens, softcap, **mask_options
    )
    allowed = np.asarray(attention_mask(tokens, tokens, **mask_options))
    np.testing.assert_allclose(
        y, numpy_attention(*inputs[:3], allowed, 0.3, softcap), rtol=1e-5, atol=2e-6
    )
    _, wanted = output_and_gradients("xla", inputs, tokens, tokens, softcap, **mask_options)
    for got, want in zip(gradients, wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    nothing = tokens.segment_ids_BxL == 0
    assert (y[nothing] == 0).all() and (gradients[0][nothing] == 0).all()
    assert all((g.swapaxes(1, 2)[nothing] == 0).all() for g in gradients[1:])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_queries_of_another_length_and_segments_without_keys(implementation):
    """Cross-attention: a decoder's segment whose encoder part is empty gets zero, no NaN."""
    queries, keys = packed(3, False, length=150), packed(4, False)
    empty = queries.segment_ids_BxL == 2
    keys = keys._replace(segment_ids_BxL=np.where(keys.segment_ids_BxL == 2, 0, keys[0]))
    inputs = arrays(5, HEADS, queries=150)
    y, gradients = output_and_gradients(implementation, inputs, queries, keys, 0.0, causal=False)
    allowed = np.asarray(attention_mask(queries, keys, causal=False))
    np.testing.assert_allclose(
        y, numpy_attention(*inputs[:3], allowed, 0.3, 0.0), rtol=1e-5, atol=2e-6
    )
    _, wanted = output_and_gradients("xla", inputs, queries, keys, 0.0, causal=False)
    for got, want in zip(gradients, wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    assert empty.any() and (y[empty] == 0).all() and (gradients[0][empty] == 0).all()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_segments_are_independent_of_each_other(implementation):
    """What stands in one segment changes no bit of another, in the output or the gradient."""
    tokens, (q, k, v, w) = packed(6, False), arrays(7, 2)
    before, of_q = output_and_gradients(
        implementation, (q, k, v, w), tokens, tokens, 0.0, causal=True
    )
    first = tokens.segment_ids_BxL == 1
    k, v = (np.where(first[:, None, :, None], 1e3, x).astype(np.float32) for x in (k, v))
    after, of_q_after = output_and_gradients(
        implementation, (q, k, v, w), tokens, tokens, 0.0, causal=True
    )
    assert (before[first] != after[first]).any()
    np.testing.assert_array_equal(before[~first], after[~first])
    np.testing.assert_array_equal(of_q[0][~first], of_q_after[0][~first])


@pytest.mark.parametrize("implementation", ("xla", *IMPLEMENTATIONS))
def test_a_length_cut_over_devices(implementation):
    """Data 2 x sequence 4, data x tensor x sequence: output and gradients of one device."""
    tokens, inputs = packed(8, True, length=256), arrays(9, 2, 256, 256)
    want = output_and_gradients("xla", inputs, tokens, tokens, 0.0, causal=True, window=50)
    for config in (MeshConfig(data=2, sequence=4), MeshConfig(data=1, tensor=4, sequence=2)):
        mesh = make_mesh(config)
        with jax.set_mesh(mesh):
            here = Tokens(
                *(jax.device_put(part, batch_sharding(mesh, part.shape)) for part in tokens)
            )
            got = output_and_gradients(
                implementation, inputs, here, here, 0.0, causal=True, window=50
            )
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_bias_by_distance():
    """T5's, blockwise, on one device and with the length cut: output, gradients, the bias's too."""
    tokens, (q, k, v, w) = packed(10, False), arrays(11, HEADS)
    # Of a length that 4 devices divide.
    tokens, (q, w) = Tokens(*(a[:, :292] for a in tokens[:2])), (q[:, :292], w[:, :292])
    k, v = k[:, :, :292], v[:, :, :292]
    bias = np.random.default_rng(12).normal(size=(HEADS, 2 * 292 - 1)).astype(np.float32)

    def run(implementation, tokens):
        @jax.jit
        def output(bias, q, k, v, tokens):
            def call(bias, q, k, v):
                mask = AttentionMask.create(
                    tokens, tokens, causal=False, bias_HxW=bias, implementation=implementation
                )
                return attention(q, KVPair(k, v), mask, scale=1.0)

            y, pull = jax.vjp(call, bias, q, k, v)
            return y, pull(jnp.asarray(w))

        return jax.tree.leaves(output(bias, q, k, v, tokens))

    want = run("xla", tokens)
    # The bias itself, pair by pair.
    place = np.arange(292)
    distances = place[None, :] - place[:, None] + 291
    np.testing.assert_array_equal(bias_of_pairs(bias, 292), bias[:, distances])
    results = [run("blockwise", tokens)]
    mesh = make_mesh(MeshConfig(data=1, tensor=2, sequence=4))
    with jax.set_mesh(mesh):
        results.append(run("blockwise", tokens))
    for got in results:
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)


def chosen(requested, length, *, windowed=False, biased=False):
    return choose_implementation(requested, length, length, windowed=windowed, biased=biased)


def test_what_is_chosen():
    far = 1 << 17
    for length, plain in ((2048, "xla"), (4096, "blockwise")):
        assert chosen("auto", length) == plain  # There is no TPU here.
        for kernel in ("splash", "triton"):
            assert chosen(kernel, length, windowed=True) == kernel
            assert chosen(kernel, length, biased=True) == plain
        assert chosen("xla", length) == "xla"
        assert choose_implementation("plain", 1, length, windowed=False, biased=False) == "xla"
    assert chosen("splash", far, windowed=True) == "blockwise"
    assert chosen("splash", far) == "splash"
    assert chosen("triton", far, windowed=True) == "triton"


def test_what_is_chosen_on_a_gpu(monkeypatch):
    class Device(NamedTuple):
        compute_capability: str

    monkeypatch.setattr(rules, "platform", lambda: "gpu")
    for capability, kernel in (("8.0", True), ("12.0", True), ("7.5", False), ("gfx942", False)):
        monkeypatch.setattr(jax, "local_devices", lambda c=capability: [Device(c)])
        for windowed in (False, True):
            expected = "triton" if kernel else "blockwise"
            assert chosen("auto", 4096, windowed=windowed) == expected
        assert chosen("auto", 512, biased=True) == "xla"


def test_a_name_that_no_implementation_has():
    config = dataclasses.replace(Config(), model=DecoderConfig(attention="cudnn"))
    with pytest.raises(UserError, match="config.model.attention: expected .*splash, triton.*cudnn"):
        check(config)


def test_triton_is_lowered_for_cuda():
    """Forward and backward inside shard_map over eight GPUs that are not here: Triton's kernels."""
    gpu = jax.sharding.AbstractDevice("NVIDIA A100-SXM4-80GB", num_cores=None, platform="gpu")
    mesh = make_mesh(MeshConfig(data=2, fsdp=1, tensor=2, sequence=2)).abstract_mesh
    B, L, H, G, K = 4, 300, 8, 2, 80

    def loss(q, k, v, ids, positions, prefix):
        tokens = Tokens(ids, positions, prefix)
        mask = AttentionMask.create(tokens, tokens, causal=True, window=256, implementation="auto")
        assert mask.implementation == "triton"
        return attention(q, KVPair(k, v), mask, scale=0.1, softcap=30.0).sum()

    like = lambda *shape, dtype=jnp.bfloat16: jax.ShapeDtypeStruct(shape, dtype)  # noqa: E731
    kv, ids = like(B, G, L, K), like(B, L, dtype=jnp.int32)
    args = (like(B, L, H, K), kv, kv, ids, ids, like(B, L, dtype=jnp.bool_))
    with jax.sharding.use_abstract_mesh(mesh.update(abstract_device=gpu)):
        traced = jax.jit(jax.grad(loss, (0, 1, 2))).trace(*args)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("custom_call @__gpu$xla.gpu.triton") == 3
    for kernel in ("forward", "dq", "dkv"):
        assert f'name = "attention_{kernel}_kernel"' in text
    # A device's queries: 2 of 4 rows, half of the length in whole blocks, 4 of 8 heads, padded.
    assert "tensor<2x192x4x128xbf16>" in text


@pytest.mark.slow
@pytest.mark.parametrize("head_dim", [64, 80, 128, 256])
def test_splash_compiles_for_tpu(head_dim):
    """Forward and backward inside shard_map, windows and prefixes, odd length, cut length."""
    pytest.importorskip("libtpu")
    from jax.experimental import topologies

    devices = topologies.get_topology_desc(platform="tpu", topology_name="v5p:2x2x1").devices
    mesh = make_mesh(MeshConfig(data=1, tensor=2, sequence=2), devices)
    B, L, H, G = 2, 1500, 8, 2

    def loss(q, k, v, ids, positions, prefix):
        tokens = Tokens(ids, positions, prefix)
        mask = AttentionMask.create(tokens, tokens, causal=True, window=256, implementation="auto")
        assert mask.implementation == "splash"
        return attention(q, KVPair(k, v), mask, scale=0.1, softcap=30.0).sum()

    with jax.set_mesh(mesh):
        like = lambda *shape, dtype=jnp.bfloat16: jax.ShapeDtypeStruct(  # noqa: E731
            shape, dtype, sharding=jax.sharding.NamedSharding(mesh, jax.P())
        )
        kv, ids = like(B, G, L, head_dim), like(B, L, dtype=jnp.int32)
        args = (like(B, L, H, head_dim), kv, kv, ids, ids, like(B, L, dtype=jnp.bool_))
        text = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*args).compile().as_text()
    for kernel in ("fwd", "dq", "dkv"):
        assert f"splash_mha_{kernel}_segmented" in text
    # No array of all pairs, of booleans or scores, but inside a fusion, which stores none.
    stored = [part for part in text.split("\n\n") if not part.lstrip().startswith("%fused")]
    assert len(stored) > 1
    for length in (L, L // 2):
        assert not any(f"{length},{L}]" in part for part in stored)
