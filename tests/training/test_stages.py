"""A run of stages: each begins from the last one, and any of them may be killed."""

import json
import os
import shutil
import signal

import jax
import numpy as np
import pytest

from ift_jax.checkpoint.manager import Checkpoints
from ift_jax.checkpoint.run_description import read_config
from ift_jax.commands import main
from ift_jax.inspection import dry_run
from ift_jax.training import first_state, loop
from tests.training import in_process, runs

NAMES = ["mid", "sft", "polish"]
# Stage, the one that it begins from, and whether the optimizer goes on.
STARTS = [("sft", "mid", True), ("polish", "sft", False)]


class StagedRuns:
    """Runs of three stages in this process."""

    def __init__(self, monkeypatch, data):
        self.runs = in_process.InProcess(monkeypatch)
        self.data = data

    def __call__(self, workdir, *flags):
        """Runs to the end, or to a signal; returns the exit status."""
        config = f"tests/training/jsonl_stages.py:{self.data}"
        return self.resume(workdir, "--config", config, *flags)

    def resume(self, workdir, *flags):
        """Runs what the workdir says."""
        return main.main(["train", "--workdir", str(workdir), *flags])


@pytest.fixture(scope="module")
def data():
    return runs.write_data(runs.SHARED / "stages.jsonl", n=60)


@pytest.fixture
def staged(monkeypatch, data):
    return StagedRuns(monkeypatch, data)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The workdir of a run that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("stages") / "whole"
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert StagedRuns(monkeypatch, data)(workdir) == 0
    return workdir


def saved(workdir, step=None):
    """The arrays of a checkpoint by part."""
    checkpoints = Checkpoints(str(workdir), read_only=True)
    return checkpoints._manager.restore(checkpoints.latest_step() if step is None else step)


def assert_equal(a, b):
    leaves, others = jax.tree.leaves(a), jax.tree.leaves(b)
    assert len(leaves) == len(others) > 0
    for ours, theirs in zip(leaves, others, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


def test_the_learning_rate_of_each_stage_is_its_closed_form(whole):
    def rates(name):
        return [each["learning_rate"] for each in runs.records(whole / name) if "loss" in each]

    wsd = [0.5, 1, 1, 1, 1, 1, 2 / 3, 1 / 3]
    np.testing.assert_allclose(rates("mid"), 1e-3 * np.array(wsd), rtol=1e-5)
    linear = [1 - 0.9 * step / 6 for step in range(6)]
    np.testing.assert_allclose(rates("sft"), 1e-3 * np.array(linear), rtol=1e-5)
    np.testing.assert_allclose(rates("polish"), [2e-4] * 5, rtol=1e-5)


def config_of(workdir, name):
    return json.loads((workdir / name / "config.json").read_text())


def test_a_stage_has_its_own_fields_and_the_model_and_tokenizer_of_the_one_before(whole):
    mid, sft, polish = (config_of(whole, name) for name in NAMES)
    assert [each["data"]["max_length"] for each in (mid, sft, polish)] == [64, 80, 64]
    assert mid["format"]["train_roles"] == ["user", "assistant"]
    assert sft["format"]["train_roles"] == ["assistant"]
    assert [each["format"]["train_on"] for each in (sft, polish)] == ["all", "last"]
    assert [each["model"]["init_from"] for each in (mid, sft, polish)] == [
        "", str(whole / "mid"), str(whole / "sft"),
    ]  # fmt: skip
    tokenizers = [(whole / name / "tokenizer" / "tokenizer.model").read_bytes() for name in NAMES]
    assert len(set(tokenizers)) == 1


@pytest.fixture(scope="module")
def killed_and_finished(whole, data, tmp_path_factory):
    """The workdir of a run that was killed in each stage, and where."""
    workdir = tmp_path_factory.mktemp("stages") / "broken"
    killed = []
    with pytest.MonkeyPatch.context() as monkeypatch:
        staged = StagedRuns(monkeypatch, data)
        save = Checkpoints.save

        def killing_save(checkpoints, step, state, **options):
            save(checkpoints, step, state, **options)
            name = os.path.basename(os.path.dirname(checkpoints.path))
            if step == 4 and name not in killed:
                killed.append(name)
                raise in_process.Killed

        monkeypatch.setattr(Checkpoints, "save", killing_save)
        for name in NAMES:
            with pytest.raises(in_process.Killed):
                staged(workdir)
            # The checkpoint that was being written is lost as well.
            shutil.rmtree(workdir / name / "checkpoints" / "4")
        assert staged.resume(workdir) == 0  # The workdir knows its config.
    return workdir, killed


def test_a_run_killed_in_each_stage_ends_bit_identical(whole, killed_and_finished):
    workdir, killed = killed_and_finished
    assert killed == NAMES
    for name in NAMES:
        assert_equal(saved(workdir / name), saved(whole / name))
        assert runs.records(workdir / name) == runs.records(whole / name)


@pytest.mark.usefixtures("staged")
@pytest.mark.parametrize(("name", "before", "keeps"), STARTS)
def test_the_optimizer_goes_on_or_begins_anew(whole, name, before, keeps):
    run = loop.prepare_run(read_config(str(whole / name)), print, "")
    state = first_state.initial_state(run)
    last = saved(whole / before)
    assert_equal(state["params"], last["params"])
    moments = [np.abs(leaf).max() for leaf in jax.tree.leaves(state["opt_state"])]
    if keeps:
        assert_equal(state["opt_state"], last["opt_state"])
    assert (max(moments) > 0) == keeps
    assert int(state["step"]) == 0


@pytest.fixture(scope="module")
def stopped(data, tmp_path_factory):
    """The workdir of a run that got SIGTERM in the last moments of its first stage."""
    workdir = tmp_path_factory.mktemp("stages") / "stopped"
    with pytest.MonkeyPatch.context() as monkeypatch:
        staged = StagedRuns(monkeypatch, data)
        finish = loop.Trainer.finish

        def signaled(trainer, began):
            finish(trainer, began)
            signal.raise_signal(signal.SIGTERM)

        monkeypatch.setattr(loop.Trainer, "finish", signaled)
        assert staged(workdir) == 0
    return workdir


def test_no_stage_begins_after_a_signal(stopped):
    assert saved(stopped / "mid")["step"] == 8
    assert not (stopped / "sft").exists()


def test_a_dry_run_plans_every_stage(staged, stopped, capsys, monkeypatch):
    monkeypatch.setattr(dry_run, "COMPILED_PARAMS", 0)
    assert staged(stopped, "--dry-run") == 0
    lines = capsys.readouterr().out
    assert not (stopped / "sft").exists()
    assert lines.count("dry run: nothing was trained") == 3
    mid, sft, polish = lines.split("stage ")[1:4]
    assert "8 steps of 4 rows of 64 tokens" in mid and "is complete at step 8" in mid
    assert "6 steps of 4 rows of 80 tokens" in sft and "would begin in" in sft
    assert f'"init_from": "{stopped / "mid"}"' in sft


def test_complete_stages_are_skipped(staged, whole, capsys):
    assert staged.resume(whole) == 0
    lines = capsys.readouterr().out
    assert "stage mid (1 of 3): complete at step 8, in" in lines
    assert "stage sft (2 of 3): complete at step 6, in" in lines
    assert "nothing to do: the run in" in lines


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (
            ["--config.stages.mid.train.steps=9"],
            "config.stages.mid.train.steps: 9, but stage sft began from the end of this stage, "
            "which was trained with 8",
        ),
        (
            ["--config.stages.sft.optimizer.final_ratio=0.2"],
            "config.stages.sft.optimizer.final_ratio: 0.2, but stage polish began",
        ),
        (
            ["--config.stages.sft.data.max_length=64"],
            "config.stages.sft.data.max_length: the run in",
        ),
        (
            ["--config.stages.polish.optimizer.learning_rate=1e-3"],
            "config.stages.polish.optimizer.learning_rate: 0.001, but the run in",
        ),
        (
            ["--config.stages.ending.train.steps=9"],
            "--config.stages.ending: no such stage; there are mid, sft, polish",
        ),
    ],
)
def test_a_changed_stage_is_refused_by_name(staged, whole, capsys, flags, expected):
    before = (whole / "stages.json").read_bytes()
    assert staged(whole, *flags) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert len(error.splitlines()) == 1
    assert (whole / "stages.json").read_bytes() == before


def test_the_report_shows_the_stages_side_by_side(whole, tmp_path):
    page = tmp_path / "page.html"
    assert main.main(["report", str(whole), "--output", str(page)]) == 0
    text = page.read_text()
    assert "3 runs: mid, sft, polish" in text


def test_the_folder_of_stages_is_no_model(whole, capsys):
    assert main.main(["export", "--workdir", str(whole), "--output", str(whole / "x")]) == 2
    assert f"expected one of them: {whole / 'mid'}, " in capsys.readouterr().err
