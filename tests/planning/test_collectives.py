"""The collectives of programs that are compiled for TPUs, against bytes counted by hand."""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from ift_jax.config.schema import MeshConfig
from ift_jax.planning.collectives import collectives
from ift_jax.planning.hlo import Module
from ift_jax.planning.operations import uncounted
from ift_jax.planning.topology import AXES
from ift_jax.sharding.mesh import config_sizes, make_mesh
from tests.planning.compiled import compile_for, devices_of, layers, step_program, train_step

F32, BF16, MIB = jnp.float32, jnp.bfloat16, 2**20


def totals(found, kind):
    """The executions and the bytes sent of all collectives of a kind."""
    of_kind = [one for one in found if one.kind == kind]
    return sum(one.executions for one in of_kind), sum(one.bytes_sent for one in of_kind)


def large_all_reduces(found, least):
    """The all-reduces in loops that send more than `least` bytes: gradients that are not cut."""
    loops = [one for one in found if one.kind == "all-reduce" and one.executions > 1]
    return [one for one in loops if one.bytes_sent / one.executions > least]


def double(x):
    return x * 2


def sum_first_axis(x):
    return x.sum(0)


class OneCollective(NamedTuple):
    """A program that needs one collective, and the MiB that a device sends in it."""

    topology: str
    function: Callable
    argument: tuple
    out: P
    sent_mib: float


ONE_COLLECTIVE = {
    # A device puts in 1/16 of 4 MiB, and passes parts on 15 times.
    "all-gather": OneCollective(
        "v5e:4x4", double, ((1024, 1024), F32, P("x")), out=P(), sent_mib=4 * 15 / 16
    ),
    # 4 MiB of each device are summed: cut and summed, then gathered.
    "all-reduce": OneCollective(
        "v5e:4x4",
        sum_first_axis,
        ((16, 1024, 1024), F32, P("x")),
        out=P(),
        sent_mib=2 * 4 * 15 / 16,
    ),
    # Each of 4 devices has 1/4 of 2 MiB, and keeps a quarter of that.
    "all-to-all": OneCollective(
        "v5p:2x2x1", double, ((1024, 1024), BF16, P("x")), out=P(None, "x"), sent_mib=2 / 4 * 3 / 4
    ),
}


@pytest.mark.parametrize("kind", ONE_COLLECTIVE)
def test_one_collective(kind):
    case = ONE_COLLECTIVE[kind]
    module, mesh = compile_for(case.topology, case.function, case.argument, out=case.out)
    (found,) = collectives(module)
    assert (found.kind, found.executions, found.group_size) == (kind, 1, mesh.size)
    assert found.bytes_sent == case.sent_mib * MIB
    assert found.group == tuple(range(mesh.size)) and not found.crosses_slices


def test_a_product_with_a_weight_that_is_cut_gathers_the_weight():
    args = ((4096, 1024), BF16, P("x")), ((1024, 1024), BF16, P("x"))
    module, _ = compile_for("v5p:2x2x1", lambda x, w: x @ w, *args, out=P("x"))
    assert totals(collectives(module), "all-gather")[1] == 2 * MIB * 3 / 4
    assert {one.dtype for one in collectives(module)} == {"bf16"}


def test_between_slices():
    """A sum over two slices of four: scattered in a slice, summed between slices, gathered."""
    module, _ = compile_for(
        "v5e:2x2", lambda x: x.sum(0), ((8, 1024, 1024), F32, P(("slice", "x"))), out=P(), slices=2
    )
    found = {one.kind: one for one in collectives(module)}
    assert {kind for kind, one in found.items() if one.crosses_slices} == {"all-reduce"}
    assert found["reduce-scatter"].bytes_sent == found["all-gather"].bytes_sent == 4 * MIB * 3 / 4
    assert found["all-reduce"].group_size == 2
    assert found["all-reduce"].bytes_sent == 2 * (4 * MIB / 4) * 1 / 2


def test_layers_in_a_loop():
    """Each layer's weight (2 MiB) is gathered forward and backward, its gradient scattered.

    Those of two layers are counted for every chip below.
    """
    n = 6
    args = ((n, 1024, 1024), BF16, P(None, "x", None)), ((16 * 512, 1024), BF16, P("x", None))
    module, _ = compile_for("v5e:4x4", layers(n), *args, out=P(None, "x", None))
    found = collectives(module)
    once = 2 * MIB * 15 / 16
    # The compiler's rings send up to two parts more than the 15 that are needed.
    assert 2 * n * once <= totals(found, "all-gather")[1] <= 2 * n * once * 17 / 15
    assert n * once <= totals(found, "reduce-scatter")[1] <= n * once * 17 / 15
    assert totals(found, "all-reduce") == totals(found, "collective-permute") == (0, 0)


@pytest.mark.parametrize("chip", AXES)
def test_every_chip_gathers_and_scatters(chip):
    """The bytes by hand, however a compiler expresses them: for tpu7x, beside the products."""
    topology = f"{chip}:{'x'.join(['2', '2', '1'][: AXES[chip]])}"
    n = 8 if chip == "tpu7x" else 4
    weights, tokens = ((2, 1024, 1024), BF16, P(None, "x")), ((n * 512, 1024), BF16, P("x"))
    module, mesh = compile_for(topology, layers(2), weights, tokens, out=P(None, "x"))
    found = collectives(module)
    once = 2 * 2 * MIB * (n - 1) / n
    assert mesh.size == n and uncounted(module) == []
    assert 2 * once <= totals(found, "all-gather")[1] <= 2 * once * (n + 1) / (n - 1)
    assert once <= totals(found, "reduce-scatter")[1] <= once * (n + 1) / (n - 1)
    assert totals(found, "all-reduce") == totals(found, "collective-permute") == (0, 0)
    assert module.entry not in {one.computation for one in found}  # But in the loops over layers.
    assert all(one.overlaps for one in found) or chip != "tpu7x"


@pytest.mark.slow
def test_train_step_gathers_weights_and_scatters_gradients(fsdp_step):
    module, _, model = fsdp_step
    found = collectives(module)
    weights = sum(leaf.size for leaf in jax.tree.leaves(model.shapes["layers"]) if leaf.ndim == 3)
    once = 2 * weights * 15 / 16  # bfloat16.
    gathered, scattered = (totals(found, kind)[1] for kind in ("all-gather", "reduce-scatter"))
    head_and_embedding = 2 * 2 * 2 * 1024 * 512 * 15 / 16
    # Weights are gathered in the forward pass and again for the backward pass, which recomputes it;
    # some are gathered once more for the gradient with respect to the input.
    assert 2 * once <= gathered <= 2.5 * once * 17 / 15 + head_and_embedding
    assert once <= scattered <= once * 17 / 15 + head_and_embedding
    assert large_all_reduces(found, least=2 * 256 * 512) == []


WRITTEN = """HloModule written

%inner_body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[], f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %three = s32[] constant(3)
  %next = s32[] add(%i, %three)
  %x = f32[8]{0} get-tuple-element(%p), index=1
  %sum = f32[8]{0} all-reduce(%x), replica_groups=GROUPS, to_apply=%add
  ROOT %out = (s32[], f32[8]{0}) tuple(%next, %sum)
}

%inner_condition (p: (s32[], f32[8])) -> pred[] {
  %p = (s32[], f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %end = s32[] constant(10)
  ROOT %less = pred[] compare(%i, %end), direction=LT
}

%body (p: (s32[], f32[8], s32[])) -> (s32[], f32[8], s32[]) {
  %p = (s32[], f32[8]{0}, s32[]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  %x = f32[8]{0} get-tuple-element(%p), index=1
  %zero = s32[] constant(0)
  %start = (s32[], f32[8]{0}) tuple(%zero, %x)
  %loop = (s32[], f32[8]{0}) while(%start), condition=%inner_condition, body=%inner_body
  %y = f32[8]{0} get-tuple-element(%loop), index=1
  %n = s32[] get-tuple-element(%p), index=2
  ROOT %out = (s32[], f32[8]{0}, s32[]) tuple(%next, %y, %n)
}

%condition (p: (s32[], f32[8], s32[])) -> pred[] {
  %p = (s32[], f32[8]{0}, s32[]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %n = s32[] get-tuple-element(%p), index=2
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (x: f32[8], n: s32[]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %given = s32[] parameter(1)
  %five = s32[] constant(5)
  %two = s32[] constant(2)
  %start = (s32[], f32[8]{0}, s32[]) tuple(%two, %x, %LIMIT)
  %loop = (s32[], f32[8]{0}, s32[]) while(%start), condition=%condition, body=%body
  ROOT %y = f32[8]{0} get-tuple-element(%loop), index=1
}
"""


@pytest.mark.parametrize(
    ("groups", "first"),
    [
        ("{{0,2},{1,3}}", (0, 2)),
        ("[2,4]<=[8]", (0, 1, 2, 3)),
        ("[2,4]<=[4,2]T(1,0)", (0, 2, 4, 6)),
        ("mesh['a'=2,'b'=4] {'a'}", (0, 4)),
        ("mesh['a'=2,'b'=4] {'b'}", (0, 1, 2, 3)),
        ("mesh['a'=2,'b'=4] {'a','b'}", tuple(range(8))),
        ("mesh['a'=8] {'a':(2)2}", (0, 2)),
    ],
)
def test_loops_and_groups_as_hlo_spells_them(groups, first):
    text = WRITTEN.replace("GROUPS", groups)
    for limit, trips in (("five", 5 - 2), ("given", 7)):
        module = Module(text.replace("LIMIT", limit))
        (found,) = collectives(module, data_trip_count=7)
        head, *parts, entry = text.replace("LIMIT", limit).split("\n\n")
        assert collectives(Module("\n\n".join([head, entry, *parts])), 7) == [found]
        assert found.executions == trips * 4  # The inner loop counts 0, 3, 6, 9.
        assert found.group == first
        n = len(first)
        assert found.bytes_sent == found.executions * 2 * 32 * (n - 1) // n
    assert found.kind == "all-reduce" and large_all_reduces([found], least=16) == [found]


@pytest.mark.parametrize(
    ("topology", "sizes", "line"),
    [
        ("v5p:4x4x4", {"fsdp": 64}, 4),
        ("v5p:8x8x16", {"fsdp": 1024}, 16),
        ("v6e:16x16", {"fsdp": 256}, 16),
        ("v5p:4x4x4", {"fsdp": 16, "tensor": 4}, 1),
        ("v5p:4x4x4", {"data": 2, "fsdp": 32}, 2),
        ("v5e:4x4", {"fsdp": 16}, 1),
    ],
)
def test_fsdp_over_many_devices_ends_in_lines_of_the_torus(topology, sizes, line):
    mesh = make_mesh(MeshConfig(**{"data": 1} | sizes), devices_of(topology))
    assert mesh.shape["fsdp_line"] == line
    assert config_sizes(mesh)["fsdp"] == sizes["fsdp"]
    for along in mesh.devices.transpose(0, 1, 3, 4, 5, 2).reshape(-1, line):
        coords = np.array([device.coords for device in along])
        assert (np.ptp(coords, axis=0) > 0).sum() == (line > 1)


@pytest.mark.slow
def test_fsdp_over_a_torus_gathers_and_scatters():
    """Left alone, the compiler all-reduces every weight and gradient over so many devices."""
    step = dict(n_layers=3, d_model=1024, rows=64)
    module, _, model = train_step("v5p:4x4x4", MeshConfig(data=1, fsdp=64), **step)
    weights = 2 * sum(
        leaf.size for leaf in jax.tree.leaves(model.shapes["layers"]) if leaf.ndim > 2
    )
    found = collectives(module)
    looped = Counter()
    for one in found:
        looped[one.kind] += one.bytes_sent * (one.executions > 1)
    # Under full remat, weights are gathered in the forward pass and again in the backward pass.
    np.testing.assert_allclose(looped["all-gather"], 2 * weights * 63 / 64, rtol=0.02)
    np.testing.assert_allclose(looped["reduce-scatter"], weights * 63 / 64, rtol=0.02)
    assert looped["all-reduce"] < 0.01 * weights and not large_all_reduces(found, least=1 << 16)


@pytest.mark.slow
def test_the_gradient_of_a_large_head_is_held_once():
    """The sum over devices takes it in its own layout; another layout would need a copy."""
    large = dict(n_layers=1, d_model=4096, rows=64, vocab_size=1 << 17)
    program = step_program("v5p:4x4x4", MeshConfig(data=1, fsdp=64), **large)
    used = program.lower().compile().memory_analysis().temp_size_in_bytes
    # The gradient in float32 and the weight in bfloat16; everything else takes half a copy more.
    assert used < (4 + 2 + 2) * 4096 * (1 << 17)
