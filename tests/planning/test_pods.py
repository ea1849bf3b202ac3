"""docs/pods.md is what `python -m benchmarks.pods` prints from the rows that it keeps."""

import json
from pathlib import Path

from benchmarks import pods

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
