"""The notebooks run from their first cell to their last, and show what they promise."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from tests.docs.notebooks import NOTEBOOKS, read
from tests.docs.pages import REPO

_ONE_DEVICE = "--xla_force_host_platform_device_count=1"  # What a laptop has.


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_stored_without_outputs(path):
    content = read(path)
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in content["cells"]]
    assert len(set(ids)) == len(ids)
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert code and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which the notebooks have run."""
    folder = tmp_path_factory.mktemp("notebooks")
    environment = os.environ | {
        "PYTHONPATH": str(REPO),
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {_ONE_DEVICE}",  # The last one counts.
    }
    command = [sys.executable, "-m", "tests.docs.notebooks", str(folder)]
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def _records(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _held_out_losses(workdir):
    records = _records(workdir / "metrics.jsonl")
    return [record["eval_loss"] for record in records if "eval_loss" in record]


def _last_answers(shown):
    """What follows "here:" and "transformers:", the last lines where transformers is installed."""
    if not importlib.util.find_spec("transformers"):
        pytest.skip("transformers reads the exported folder")
    here, there = shown.splitlines()[-2:]
    return here.removeprefix("here:").strip(), there.removeprefix("transformers:").strip()


@pytest.mark.slow
def test_a_chat_model_from_your_rows(folder):
    shown = (folder / "chat_model_from_your_rows.txt").read_text(encoding="utf-8")
    assert "data_shop, example 0" in shown and "⟦Aisle 1: apples.<|im_end|>⟧" in shown
    losses = _held_out_losses(folder / "runs" / "chat")
    assert losses[-1] < 0.2 * losses[0]
    tables = [line for line in shown.splitlines() if line.startswith("  mean over tasks")]
    before, after = (float(line.split()[4]) for line in tables)
    assert before == 0 and after >= 0.5
    here, there = _last_answers(shown)
    assert here == there and here.startswith("Aisle")


@pytest.mark.slow
def test_a_t5_on_instruction_tasks(folder):
    shown = (folder / "t5_on_instruction_tasks.txt").read_text(encoding="utf-8")
    assert "Name the opposite of hot.</s>\n=> ⟦cold</s>⟧" in shown
    losses = _held_out_losses(folder / "runs" / "t5")
    assert losses[-1] < 0.2 * losses[0]
    before, after = _records(folder / "runs" / "t5" / "evaluations.jsonl")
    assert before["overall"]["exact_match"] == 0
    assert after["overall"]["exact_match"] > after["overall"]["baseline"] + 0.2
    here, there = _last_answers(shown)
    assert here == there and "bad" in here
