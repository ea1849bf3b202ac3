"""launch/slurm.py: what sbatch gets, and the batch script run with a stand-in for srun."""

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.launch.fakes import AWKWARD, EARLY_SIGNAL, PATIENCE, ROOT, executable, launch

SRUN = """#!/usr/bin/env bash
printf '%s\\n' "$*" >"$RECORD/srun"
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
ARGUMENTS = ["sft", "--nodes=2", "--gpus-per-node=8"]
# Saves on SIGTERM and exits with 0, as `ift train` does.
SAVES = "trap 'sleep 0.3; echo saved; exit 0' TERM; echo up; while :; do sleep 0.05; done"
JOB = "JobId=17 JobName=sft\n   PreemptEligibleTime=2026-01-02T03:04:05 PreemptTime={}\n"


@pytest.fixture
def bin_folder(tmp_path):
    folder = tmp_path / "bin"
    executable(
        folder / "sbatch",
        '#!/bin/sh\necho "$@" >"$RECORD/sbatch"\ncat >"$RECORD/batch"\n'
        '[ -z "$FAIL" ] || { echo "sbatch: error: invalid partition" >&2; exit 1; }\n'
        "echo '17;cluster'\n",
    )
    executable(folder / "srun", SRUN)
    # What Slurm knows of the job is in a file; each requeue is recorded.
    executable(
        folder / "scontrol",
        '#!/bin/sh\n[ "$1" != show ] || exec cat "$RECORD/job"\necho "$@" >>"$RECORD/scontrol"\n',
    )
    (tmp_path / "job").write_text(JOB.format("None"))
    return folder


def submit(bin_folder, *arguments, **environment):
    record = {"RECORD": str(bin_folder.parent), **environment}
    return launch("slurm.py", *ARGUMENTS, *arguments, path=bin_folder, **record)


def start_batch(bin_folder, **more):
    environment = {
        **more,
        "RECORD": str(bin_folder.parent),
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "17",
    }
    return subprocess.Popen(
        ["bash", bin_folder.parent / "batch"], env=environment, stdout=subprocess.PIPE, text=True
    )


def test_a_process_for_each_gpu_that_requeues(bin_folder):
    result = submit(
        bin_folder,
        "--partition=gpu",
        "--account=nlp",
        "--time=1-00:00:00",
        "--mem=0",
        "--cpus-per-task=12",
        "--grace=300",
        "--reservation=spring",
        "--sbatch-flag=--mail-type=END",
        "--sbatch-flag=--comment=two words",
        "--",
        "true",
        "train",
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("job 17 is in the queue; its log will be sft-17.log;")
    assert (bin_folder.parent / "sbatch").read_text() == "--parsable\n"
    options = [
        line.removeprefix("#SBATCH --")
        for line in (bin_folder.parent / "batch").read_text().splitlines()
        if line.startswith("#SBATCH")
    ]
    assert options == [
        "job-name=sft",
        "nodes=2",
        "ntasks-per-node=8",
        "gpus-per-node=8",
        "time=1-00:00:00",
        "partition=gpu",
        "account=nlp",
        "cpus-per-task=12",
        "mem=0",
        "reservation=spring",
        "output=%x-%j.log",
        "open-mode=append",
        "signal=B:USR1@300",
        "mail-type=END",
        "#SBATCH '--comment=two words'",
        "requeue",
    ]
    assert start_batch(bin_folder).wait(timeout=PATIENCE) == 0
    srun = (bin_folder.parent / "srun").read_text()
    assert srun == "--kill-on-bad-exit=1 --wait=60 --cpus-per-task=12 true train\n"


def test_arguments_and_environment_arrive_as_typed(bin_folder):
    program = (
        "import json, os, sys; print(json.dumps([os.environ['A'], os.getcwd(), *sys.argv[1:]]))"
    )
    words = [sys.executable, "-c", program, *AWKWARD]
    assert submit(bin_folder, "--env=A=b $c {d} 'e'", "--", *words).returncode == 0
    batch = start_batch(bin_folder)
    output, _ = batch.communicate(timeout=PATIENCE)
    assert batch.returncode == 0
    assert json.loads(output) == ["b $c {d} 'e'", str(ROOT), *AWKWARD]
    srun = (bin_folder.parent / "srun").read_text()
    assert srun.startswith(f"--kill-on-bad-exit=1 --wait=60 {sys.executable} -c")
    assert not (bin_folder.parent / "scontrol").exists()


@pytest.mark.parametrize(
    ("told", "preempted", "requeued"),
    [
        (signal.SIGUSR1, "None", True),  # Near the time limit.
        (signal.SIGTERM, "2026-01-02T03:04:05", True),
        (signal.SIGTERM, "None", False),  # scancel.
        (signal.SIGTERM, None, False),  # scancel, and Slurm does not answer.
    ],
)
def test_a_job_saves_and_goes_back_into_the_queue_unless_it_was_cancelled(
    bin_folder, told, preempted, requeued
):
    """A run that saved exits with 0, which alone would look like its end."""
    job = bin_folder.parent / "job"
    job.unlink() if preempted is None else job.write_text(JOB.format(preempted))
    assert submit(bin_folder, "--", "bash", "-c", SAVES).returncode == 0
    batch = start_batch(bin_folder)
    assert batch.stdout.readline() == "up\n"
    batch.send_signal(told)
    output, _ = batch.communicate(timeout=PATIENCE)
    said = "back into the queue, after a preemption or near the time limit\n" if requeued else ""
    assert (batch.returncode, output) == (0, f"saved\n{said}")
    scontrol = bin_folder.parent / "scontrol"
    assert (scontrol.read_text() if scontrol.exists() else "") == "requeue 17\n" * requeued


def test_a_signal_before_the_steps_number_is_known_is_passed_on(bin_folder, tmp_path):
    (tmp_path / "early").write_text(EARLY_SIGNAL)
    (tmp_path / "job").write_text(JOB.format("2026-01-02T03:04:05"))
    assert submit(bin_folder, "--", "bash", "-c", SAVES).returncode == 0
    batch = start_batch(bin_folder, BASH_ENV=str(tmp_path / "early"))
    batch.communicate(timeout=PATIENCE)
    assert batch.returncode == 0
    assert (tmp_path / "scontrol").read_text() == "requeue 17\n"


def test_a_failure_is_shown_and_not_requeued(bin_folder):
    assert submit(bin_folder, "--", "bash", "-c", "exit 3").returncode == 0
    batch = start_batch(bin_folder)
    batch.communicate(timeout=PATIENCE)
    assert batch.returncode == 3
    assert not (bin_folder.parent / "scontrol").exists()


def test_a_dry_run_prints_what_would_be_submitted(bin_folder):
    dry = submit(bin_folder, "--dry-run", "--", "ift", *AWKWARD)
    assert dry.returncode == 0 and not (bin_folder.parent / "sbatch").exists()
    submit(bin_folder, "--", "ift", *AWKWARD)
    batch = (bin_folder.parent / "batch").read_text()
    assert dry.stdout == f"sbatch --parsable <<'SCRIPT'\n{batch}SCRIPT\n"


def test_an_error_of_sbatch_is_one_line(bin_folder):
    result = submit(bin_folder, "--", "ift", FAIL="yes")
    assert result.returncode == 1
    assert result.stderr == (
        "error: could not submit sft: sbatch exited with 1: sbatch: error: invalid partition\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--partition=a b"], "is not a word as Slurm takes it"),
        (["--time=soon"], "is not a time"),
        (["--output=x\n#SBATCH --nodes=99"], "is not a file's path"),
        (["--nodes=0"], "at least 1"),
        (["--env=A=b\nc"], "an argument with a line break"),
        (["--sbatch-flag=mail"], "is not a flag"),
        (["--sbatch-flag=--x=\n#SBATCH --nodes=99"], "an argument with a line break"),
        (["--part=gpu"], "unrecognized arguments: --part=gpu"),
    ],
)
def test_arguments_are_checked_before_anything_runs(bin_folder, arguments, said):
    result = submit(bin_folder, *arguments, "--", "ift")
    assert result.returncode in (1, 2) and said in result.stderr
    assert not (bin_folder.parent / "sbatch").exists()
