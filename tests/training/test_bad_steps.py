"""What a run does while its loss or gradient is not finite."""

import math

import pytest

from ift_jax.checkpoint.manager import Checkpoints
from tests.training import in_process


@pytest.fixture
def process(monkeypatch):
    return in_process.InProcess(monkeypatch)


def steps(workdir):
    return Checkpoints(str(workdir), read_only=True).steps()


def test_a_run_ends_two_steps_after_the_last_bad_step_it_bears(process, tmp_path, capsys):
    process.bad_steps = set(range(3, 11))
    rarely = ["train.log_every=100", "train.save_every=100", "train.eval_every=0"]
    assert process.train(tmp_path, [*rarely, "train.max_bad_steps=3"]) == 2
    error = capsys.readouterr().err
    assert "error: step 5: 3 steps in a row had a loss or gradient that is not finite" in error
    assert process.n_steps_done == 7


def test_bad_steps_are_null_in_the_metrics_and_named_on_the_console(process, tmp_path, capsys):
    process.bad_steps = {4, 5, 6, 9}
    assert process.train(tmp_path) == 0
    logged = {r["step"]: r for r in in_process.records(tmp_path) if "grad_norm" in r}
    assert logged[6]["loss"] is logged[6]["nll"] is logged[6]["accuracy"] is None
    assert logged[6]["grad_norm"] is None and logged[6]["skipped"] == 3
    assert math.isfinite(logged[9]["loss"])  # The mean of steps 7 and 8.
    shown = capsys.readouterr().out
    [line] = [line for line in shown.splitlines() if line.startswith("step 6/10") and "tok" in line]
    assert "no finite loss" in line and "nan" not in shown


def test_nothing_is_saved_during_bad_steps_but_the_next_good_one(process, tmp_path, capsys):
    process.bad_steps = {3, 4, 5, 6}
    keep_all = ["train.max_to_keep=9", "train.keep_best=0"]
    assert process.train(tmp_path, keep_all) == 0
    assert steps(tmp_path) == [7, 8, 10]
    assert "step 4: not saved, because the last 2 steps were not finite" in capsys.readouterr().out


def test_a_stop_during_bad_steps_loses_neither_them_nor_a_good_checkpoint(monkeypatch, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    one = ["train.max_to_keep=1", "train.keep_best=0", "train.save_every=5", "train.log_every=1"]
    process = in_process.InProcess(monkeypatch, one)
    process.bad_steps = {6, 7, 8, 9}
    assert process.train(whole) == 0
    at_step_7 = [i for i, event in enumerate(process.events) if event == "write starts"]
    process.stop(broken, at_step_7[9])
    stopped_at = steps(broken)[-1]
    assert steps(broken) == [5, stopped_at] and stopped_at in process.bad_steps
    assert process.train(broken) == 0
    assert steps(broken) == [10]
    in_process.assert_same_run(broken, whole)
