"""The files and commands of docs/own_system.md, in an empty folder."""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest

from tests.training.runs import REPO

PAGE = (REPO / "docs" / "own_system.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.M | re.S)
COMMAND = {"ift": [sys.executable, "-m", "ift_jax.commands.main"], "python": [sys.executable]}


@pytest.mark.slow
def test_the_page_works_from_the_first_file_to_the_last_command(tmp_path):
    files = [text.split("\n", 1) for kind, text in BLOCKS if kind != "bash"]
    for first, text in files:
        (tmp_path / first.removeprefix("# ")).write_text(text)
    names = ["make_data.py", "units.jinja", "units.py", "units_recipe.py"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    flags = re.sub(r"(device_count=)\d+", r"\g<1>1", os.environ["XLA_FLAGS"])  # Of conftest.py.
    environment = dict(os.environ, PYTHONPATH=str(REPO), XLA_FLAGS=flags)

    def run(line):
        program, *arguments = shlex.split(line)
        done = subprocess.run(
            [*COMMAND[program], *arguments], cwd=tmp_path, env=environment, capture_output=True,
            text=True, timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    [commands] = [text.strip().splitlines() for kind, text in BLOCKS if kind == "bash"]
    shown = [run(line) for line in commands]
    assert "units_length" in shown[1] and "66.667%" in shown[1]  # The rates, 2 to 1.
    assert "heldout: 1 tasks, 200 examples" in shown[2]
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert set(scores["tasks"]) == {"units_time"} and len(scores["answers"]) == 5
    assert 0 <= scores["tasks"]["units_time"]["right_within_a_tenth"] <= 1
    # The command in the text, which needs no recipe.
    [line] = re.findall(r"`(ift inspect units_train .*?)`", PAGE)
    assert "units_weight" in run(line)
