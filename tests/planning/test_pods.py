"""docs/pods.md is what `python -m benchmarks.pods` prints from the rows that it keeps."""

import json
from pathlib import Path

from benchmarks import pods
from ift_jax.planning.topology import AXES

KEPT = json.loads(pods.KEPT.read_text())


def test_the_page_is_what_the_command_prints():
    assert Path("docs/pods.md").read_text() == pods.page(pods.kept_rows([], every=False))


def test_every_row_was_made_by_its_command_and_adds_up():
    assert {name: row["arguments"] for name, row in KEPT.items()} == {
        name: arguments for name, (_, arguments) in pods.ROWS.items()
    }
    for name, row in KEPT.items():
        memory = row["memory"]
        assert row["fits"] and memory["total"] == sum(memory["parts"].values()) < row["hbm"], name
        assert row["rows"] % row["devices"] == 0 and row["collectives"], name


def test_every_chip_has_a_row_whose_collectives_are_those_of_sharded_parameters():
    """Each weight is gathered twice, in bfloat16, and the gradient of each is summed."""
    assert {row["topology"].partition(":")[0] for row in KEPT.values()} == set(AXES)
    for name, row in KEPT.items():
        once = 2 * row["parameters"] * (row["devices"] - 1) / row["devices"]
        sent = {kind: n_bytes for kind, (_, n_bytes) in row["collectives"].items()}
        # The 8B model's two matrices of the vocabulary are gathered once. The rings of up to
        # 16 devices send up to two parts more than the 15 that are needed.
        assert 1.85 * once < sent["all-gather"] < 2 * once * 17 / 15, name
        # An all-reduce sends a sum twice.
        assert once < sent["reduce-scatter"] + sent["all-reduce"] / 2 < 1.3 * once, name
        assert row["not_counted"] == [], name
