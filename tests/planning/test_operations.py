"""Programs as HLO spells them: what runs beside, what is followed, and what is not counted."""

import dataclasses

import pytest

from ift_jax.planning.chips import chips
from ift_jax.planning.collectives import collectives
from ift_jax.planning.estimate import estimate
from ift_jax.planning.executions import count_executions, started_by
from ift_jax.planning.hlo import Module, shape_bytes
from ift_jax.planning.operations import Uncounted, uncounted

# A loop of five iterations whose body does WORK.
PROGRAM = """HloModule written

%gather (x: f32[8], t: token[]) -> f32[32] {
  %x = f32[8]{0} parameter(0)
  %t = token[] parameter(1)
  ROOT %all = f32[32]{0} all-gather(%x), replica_groups=[1,4]<=[4], dimensions={0}
}

%outer_gather (x: f32[8], t: token[]) -> f32[32] {
  %x = f32[8]{0} parameter(0)
  %t = token[] parameter(1)
  ROOT %y = f32[32]{0} call(%x, %t), to_apply=%gather
}

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[], f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  %x = f32[8]{0} get-tuple-element(%p), index=1
  %token = token[] after-all()
  WORK
  %product = f32[8]{0} multiply(%x, %x), backend_config={"estimated_cycles":"1000"}
  ROOT %out = (s32[], f32[8]{0}) tuple(%next, %product)
}

%condition (p: (s32[], f32[8])) -> pred[] {
  %p = (s32[], f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %five = s32[] constant(5)
  ROOT %less = pred[] compare(%i, %five), direction=LT
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %zero = s32[] constant(0)
  %start = (s32[], f32[8]{0}) tuple(%zero, %x)
  %loop = (s32[], f32[8]{0}) while(%start), condition=%condition, body=%body
  ROOT %y = f32[8]{0} get-tuple-element(%loop), index=1
}
"""
STARTED = {
    "call-start": "(%x, %token), to_apply=%gather",
    "async-start": "(%x, %token), calls=%outer_gather",
    "fusion-start": "(%x, %token), kind=kCustom, calls=%gather",
}
WAITED_FOR = {
    "call": "f32[32]{0} call(%x, %token), to_apply=%outer_gather",
    "fusion": "f32[32]{0} fusion(%x, %token), kind=kCustom, calls=%gather",
    "all-gather": "f32[32]{0} all-gather(%x), replica_groups=[1,4]<=[4], dimensions={0}",
    "conditional": "f32[32]{0} conditional(%flag, %a, %b), true_computation=%gather, "
    "false_computation=%nothing",
    "conditional of many": "f32[32]{0} conditional(%i, %a, %b), "
    "branch_computations={%nothing, %gather}",
}
NOTHING = "%nothing (x: f32[8]) -> f32[32] {\n  ROOT %z = f32[32]{0} constant({...})\n}"


class Device:
    """One of four in a row."""

    def __init__(self, x):
        self.coords = (x, 0, 0)


def program(work, *, kept=True):
    """The program; its computations with a gather are kept if the work names one."""
    head, *parts = PROGRAM.replace("WORK", work).split("\n\n")
    if not kept:
        parts = [part for part in parts if "gather" not in part.partition("(")[0]]
    return Module("\n\n".join([head, NOTHING, *parts]))


@pytest.mark.parametrize("opcode", STARTED)
def test_what_an_operation_starts_runs_beside_what_follows(opcode):
    shape = "((f32[8]{0}, token[]), f32[32]{0})"
    module = program(
        f'%begun = {shape} {opcode}{STARTED[opcode]}, async_execution_thread="sparsecore"\n'
        f"  %done = f32[32]{{0}} {opcode.removesuffix('start')}done(%begun)"
    )
    (found,) = collectives(module)
    assert (found.kind, found.executions, found.bytes_sent) == ("all-gather", 5, 5 * 32 * 3)
    assert found.overlaps and found.computation == "body" and found.group == (0, 1, 2, 3)
    assert uncounted(module) == [] and set(started_by(module).values()) == {"body"}
    # The gather and the products of the loop take place at the same time.
    chip = chips()["tpu7x"]
    step = estimate(module, chip, [Device(x) for x in range(4)], model_flops=0.0)
    sent = step.interconnect_seconds
    assert sent == pytest.approx(5 * 96 / chip.ici_bandwidth / 2)  # A ring has two links.
    assert step.memory_seconds > 0
    assert step.seconds == pytest.approx(max(sent, step.memory_seconds))


@pytest.mark.parametrize("work", WAITED_FOR.values(), ids=WAITED_FOR)
def test_what_a_computation_calls_is_waited_for(work):
    names_one = "%gather" in work or "%outer" in work
    module = program(f"%flag = pred[] constant(true)\n  %y = {work}", kept=names_one)
    (found,) = collectives(module)
    assert (found.executions, found.bytes_sent, found.overlaps) == (5, 480, False)
    assert uncounted(module) == [] and started_by(module) == {}


def test_work_on_a_sparse_core_takes_no_time_of_the_others():
    """Work of 100 cycles is hidden behind the 1,000 of the loop's body, and 10,000 is not."""

    def seconds(cycles):
        begun = "%b = (f32[8]{0}, f32[32]{0}) call-start(%x, %token), to_apply=%gather"
        text = PROGRAM.replace("WORK", begun).replace("[1,4]<=[4]", "[1,1]<=[1]")
        marked = f'dimensions={{0}}, backend_config={{"estimated_cycles":"{cycles}"}}'
        module = Module(text.replace("dimensions={0}", marked))
        slow_memory = dataclasses.replace(chips()["tpu7x"], hbm_bandwidth=1.0, clock=1e9)
        return estimate(module, slow_memory, [Device(0)], model_flops=0.0).seconds

    assert seconds(100) == pytest.approx(5 * 1000 / 1e9)
    assert seconds(10_000) == pytest.approx(5 * 10_000 / 1e9)


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (
            "%y = f32[8]{0} ragged-all-to-all(%x, %x, %i), replica_groups={{0,1}}",
            Uncounted("ragged-all-to-all", 5, 5 * (32 + 32 + 4)),
        ),
        ("%y = f32[8]{0} collective-broadcast(%x)", Uncounted("collective-broadcast", 5, 160)),
        ("%y = (f32[8]{0}, u32[]) teleport-start(%x)", Uncounted("teleport-start", 5, 160)),
        ("%y = (f32[8]{0}, u32[], token[]) send(%x, %token)", Uncounted("send", 5, 160)),
        ("%y = ((f32[8]{0}), token[]) infeed(%token)", Uncounted("infeed", 5, 160)),
        (
            '%y = f32[8]{0} custom-call(%x), custom_call_target="tpu_custom_call"',
            Uncounted("custom-call tpu_custom_call", 5, 160),
        ),
    ],
)
def test_an_operation_of_an_unknown_kind_that_carries_bytes_is_reported(work, expected):
    module = program(work, kept=False)
    assert collectives(module) == []
    assert uncounted(module) == [expected]


def test_a_collective_that_nothing_known_executes_is_reported():
    module = program("%y = f32[8]{0} add(%x, %x), magic=%gather")
    assert "gather" not in count_executions(module)
    assert uncounted(module) == [Uncounted("all-gather", 0, 32)]


@pytest.mark.parametrize(
    ("shape", "n_bytes"),
    [
        ("f32[8,128]{1,0:T(8,128)}", 4096),
        ("(bf16[4]{0}, token[], pred[3]{0}, /*index=3*/u32[]{:S(2)})", 8 + 3 + 4),
        ("f8e4m3fn[10]{0}", 10),
        ("s4[9]{0:T(256)E(4)}", 5),
        ("c64[2]{0}", 16),
        ("f32[<=8]{0}", 32),
    ],
)
def test_bytes_of_a_shape(shape, n_bytes):
    assert shape_bytes(shape) == n_bytes


def test_a_dtype_of_unknown_size_is_no_zero():
    with pytest.raises(ValueError, match="'weird', whose size is not known"):
        shape_bytes("weird[8]{0}")
