"""A run that cannot write ends in one line, as early as it can be known, and goes on later."""

import time
from collections import namedtuple

import pytest

from ift_jax.checkpoint.manager import Checkpoints
from ift_jax.io import outputs
from ift_jax.io.locks import run_lock
from ift_jax.training import loop
from tests.io.full_disk import files_of_at_most
from tests.training import in_process

DiskUsage = namedtuple("DiskUsage", "total used free")


@pytest.fixture
def process(monkeypatch):
    return in_process.InProcess(monkeypatch)


def error_line(capsys):
    """The one line of standard error."""
    [line] = capsys.readouterr().err.splitlines()
    return line.removeprefix("error: ")


def test_a_workdir_that_cannot_be_used_is_refused_before_any_work(
    process, tmp_path, capsys, monkeypatch
):
    def prepare_run(*_):
        raise AssertionError("must not be reached")

    monkeypatch.setattr(loop, "prepare_run", prepare_run)
    file = tmp_path / "file"
    file.write_text("")
    assert process.train(file) == 2
    assert error_line(capsys) == f"--workdir {file}: is a file; expected a folder"
    assert process.train(file / "run") == 2
    assert error_line(capsys) == f"--workdir {file}/run: {file} is a file; expected a folder"
    (tmp_path / "run").mkdir()
    with run_lock(str(tmp_path / "run")):
        assert process.train(tmp_path / "run") == 2
    assert error_line(capsys) == f"--workdir {tmp_path}/run: another process is training here"


def test_a_disk_without_room_for_a_checkpoint_is_found_before_the_first_step(
    process, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(outputs.shutil, "disk_usage", lambda path: DiskUsage(10**9, 10**9, 1000))
    assert process.train(tmp_path / "run") == 2
    line = error_line(capsys)
    assert line.startswith(
        f"a checkpoint in {tmp_path}/run/checkpoints: takes 0.3 MB, and its disk has 0.0 MB free"
    )
    assert process.n_steps_done == 0


def test_a_failed_save_stops_the_run_at_once_and_the_same_command_goes_on(
    process, tmp_path, capsys, monkeypatch
):
    save = Checkpoints.save

    def save_and_fail(checkpoints, *arguments, **options):
        save(checkpoints, *arguments, **options)
        while checkpoints._manager.is_saving_in_progress():
            time.sleep(0.001)  # The steps of a toy are faster than its disk.

    monkeypatch.setattr(Checkpoints, "save", save_and_fail)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert process.train(whole) == 0
    capsys.readouterr()
    limit = files_of_at_most(30_000)  # A checkpoint is larger, all other files are smaller.
    second_save = [i for i, event in enumerate(process.events, 1) if event == "save starts"][1]
    with process._hook(second_save, limit.__enter__):
        assert process.train(broken) == 2
    limit.__exit__(None, None, None)
    assert error_line(capsys) == (
        f"{broken}/checkpoints/8: the checkpoint cannot be written: File too large; step 4 is "
        "complete"
    )
    assert process.n_steps_done == 8  # The run has ten.
    assert process.train(broken) == 0
    in_process.assert_same_run(broken, whole)


def test_a_run_and_a_stopped_run_leave_a_page_and_print_its_place_once(
    tmp_path, capsys, monkeypatch
):
    process = in_process.InProcess(monkeypatch, ["train.report=True"])
    stopped = tmp_path / "stopped"
    process.stop(stopped, at_event=8)  # After the held-out loss of step 0.
    told = "stopped by a signal at step 0; there is no checkpoint yet. The same command starts anew"
    assert told in capsys.readouterr().out
    process.stop(stopped, at_event=12)
    assert "<title>stopped</title>" in (stopped / "report.html").read_text()
    printed = capsys.readouterr().out.splitlines()
    assert "stopped by a signal at step 1; saved. The same command resumes." in printed
    assert printed[-1] == f"report: {stopped}/report.html"
    assert process.train(stopped) == 0
    page = (stopped / "report.html").read_text()
    assert "Step 10 of 10, complete." in page
    assert capsys.readouterr().out.count("report.html") == 1
    assert not list(stopped.glob(".*tmp"))
