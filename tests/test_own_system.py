"""The files and commands of docs/own_system.md, in an empty folder."""

import json
import re
import runpy
import shlex
import sys

import pytest

from ift_jax.commands import main
from tests.training.runs import REPO

PAGE = (REPO / "docs" / "own_system.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.M | re.S)


@pytest.mark.slow
@pytest.mark.usefixtures("own_registry")
def test_the_page_works_from_the_first_file_to_the_last_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "units", raising=False)
    files = [text.split("\n", 1) for kind, text in BLOCKS if kind != "bash"]
    for first, text in files:
        (tmp_path / first.removeprefix("# ")).write_text(text)
    names = ["make_data.py", "units.jinja", "units.py", "units_recipe.py"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names

    def run(line):
        program, *arguments = shlex.split(line)
        if program == "python":
            runpy.run_path(*arguments)
        else:
            assert main.main(arguments) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    [commands] = [text.strip().splitlines() for kind, text in BLOCKS if kind == "bash"]
    assert [line.split()[:2] for line in commands[1:]] == [
        ["ift", command] for command in ("inspect", "prepare", "train", "eval")
    ]
    shown = [run(line) for line in commands]
    assert "units_length" in shown[1] and "66.667%" in shown[1]  # The rates, 2 to 1.
    assert "heldout: 1 tasks, 200 examples" in shown[2]
    assert "trained to step 20" in shown[3]
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert set(scores["tasks"]) == {"units_time"} and len(scores["answers"]) == 5
    assert 0 <= scores["tasks"]["units_time"]["right_within_a_tenth"] <= 1
    # The command in the text, which needs no recipe.
    [line] = re.findall(r"`(ift inspect units_train .*?)`", PAGE)
    assert "units_weight" in run(line)
    monkeypatch.delitem(sys.modules, "units")
