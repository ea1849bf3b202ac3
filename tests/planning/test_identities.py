"""A plan whose figures contradict each other is an internal error, not a plan."""

import copy

import pytest

from ift_jax.commands.failures import OUR_ERROR, report
from ift_jax.planning.identities import check_plan

PARTS = {"parameters": 400, "optimizer": 800, "gradients": 400, "activations, temporaries": 100}
PLAN = {
    "topology": "v5p:2x2x1",
    "devices": 4,
    "fits": True,
    "hbm": 2000.0,
    "memory": {"parts": PARTS | {"outputs": 8, "program": 50}, "total": 1758, "live": 1500},
    "collectives": [{"kind": "all-gather", "group_size": 4, "bytes_sent": 300}],
    "not_counted": [],
    "compiler_estimate": {
        "seconds": 2.0,
        "compute_seconds": 1.0,
        "memory_seconds": 0.5,
        "mfu": 0.4,
    },
}


def changed(place, value):
    record = copy.deepcopy(PLAN)
    *path, last = place
    inner = record
    for key in path:
        inner = inner[key]
    inner[last] = value
    return record


def test_a_plan_that_can_be_is_no_error():
    check_plan(PLAN, least_sent=300.0)
    check_plan(changed(["memory", "live"], 1900), 300.0)  # Arrays in on-chip memory are live too.
    check_plan({"fits": False, "memory": {"parts": {}}}, 300.0)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (["memory", "total"], 1757, "the parts of the memory add up to 1,758 bytes, not to 1,757"),
        (["memory", "live"], 1207, "1,207 bytes are live, fewer than the 1,208 of arguments"),
        (["memory", "parts", "outputs"], -8, "outputs take -8 bytes"),
        (["hbm"], 1700.0, "it fits, with 1,758 bytes in a memory of 1,700"),
        (["compiler_estimate", "seconds"], 1.6e-7, "a step takes 1.6e-07 s, and its operations"),
        (["compiler_estimate", "mfu"], 1.2, "the MFU is 1.2"),
        (["compiler_estimate", "mfu"], float("nan"), "the MFU is nan"),
        (["collectives"], [], "a device sends 0 bytes, and the sum of the gradients needs 300"),
        (["collectives", 0, "group_size"], 8, "an all-gather of 8 sends 300 bytes"),
        (["collectives", 0, "bytes_sent"], -1, "an all-gather of 4 sends -1 bytes"),
    ],
)
def test_a_plan_that_cannot_be_is_an_internal_error(place, value, said, capsys):
    with pytest.raises(RuntimeError, match="the plan for v5p:2x2x1 is impossible: ") as error:
        check_plan(changed(place, value), least_sent=300.0)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert report(error.value, debug=False) == OUR_ERROR
    assert "a fault of ift_jax rather than yours" in capsys.readouterr().err


def test_what_is_not_counted_may_be_what_is_missing():
    record = changed(["collectives"], [])
    record["not_counted"] = [{"operation": "teleport", "executions": 1, "n_bytes": 300}]
    check_plan(record, least_sent=300.0)
