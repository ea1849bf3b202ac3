"""Several real processes on one machine make the same run as one, even if some of them die."""

import json
import signal

import jax
import numpy as np
import pytest

from ift_jax.commands.main import main
from ift_jax.sharding.mesh import make_mesh
from ift_jax.training import train_program
from tests.training import runs

pytestmark = pytest.mark.slow


def start(workdir, count, overrides, hold=None):
    """Starts the `count` processes of a run, with a device each.

    Args:
        workdir: The workdir of the run.
        count: How many there are.
        overrides: Settings.
        hold: The step at which the first one waits, and for which file; the others wait for it.
    """
    processes = (runs.free_port(), count)
    commands = [
        runs.command(workdir, overrides=overrides, processes=processes, index=i)
        for i in range(count)
    ]
    if hold:
        commands[0] = runs.held(commands[0], *hold)
    return [runs.start(command) for command in commands]


def assert_same_run(workdir, expected_workdir):
    """The records are the same: counts of tokens exactly, other numbers to float tolerance."""
    got, expected = runs.records(workdir), runs.records(expected_workdir)
    assert [record["step"] for record in got] == [record["step"] for record in expected]
    for a, b in zip(got, expected, strict=True):
        assert a.keys() == b.keys()
        for name in a.keys() & {"trained_tokens", "tokens", "task_tokens", "skipped"}:
            assert a[name] == b[name]
        for name in a.keys() & {"loss", "nll", "grad_norm", "eval_loss"}:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-4)


def run_alone(workdir, n_devices, overrides):
    """Run to the end in this process, on the first of its devices."""

    def mesh_of_first(sizes, devices=None):
        return make_mesh(sizes, jax.devices()[:n_devices] if devices is None else devices)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_program, "make_mesh", mesh_of_first)
        assert main(runs.command(workdir, overrides=overrides)[3:]) == 0


def test_four_processes_make_the_run_of_one(tmp_path):
    settings = [
        "train.steps=12",
        "train.eval_every=8",
        "train.preview_every=8",
        "mesh.data=2",
        "mesh.fsdp=2",
        "evaluation.examples=4",
        "evaluation.batch_size=3",  # The last batch of a task is not full.
        "train.eval_metrics_every=8",
        "train.eval_metrics_examples=5",
        "train.best_metric=eval/overall/rouge_l",
        "train.early_stopping_patience=100",
    ]
    one, four = tmp_path / "one", tmp_path / "four"
    run_alone(one, 4, settings)
    for process in start(four, 4, settings):
        runs.finish(process)
    assert sum("loss" in record for record in runs.records(four)) == 3
    assert_same_run(four, one)
    # Only process 0 writes them. The numbers are exactly the same, each example is there once.
    files = ["answers.jsonl", "samples.jsonl", "evaluation.json", "evaluations.jsonl"]
    for name in [*files, "checkpoints.json"]:
        assert (four / name).read_text() == (one / name).read_text() != "", name
    answers = [json.loads(line) for line in (one / "answers.jsonl").read_text().splitlines()]
    assert len({answer["index"] for answer in answers}) == len(answers) == 4


# A run that is cut off saves seldom, on as many devices as there are.
SETTINGS = [
    "train.steps=40",
    "train.save_every=16",
    "train.eval_every=0",
    "train.preview_prompts=0",
    "mesh.data=-1",
]


def test_a_run_survives_a_signal_and_a_death_with_other_numbers_of_processes(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run_alone(whole, 2, SETTINGS)

    def has_reached(step):
        return any(record["step"] >= step for record in runs.records(broken))

    def saved_steps():
        names = (path.name for path in (broken / "checkpoints").iterdir())
        return {int(name) for name in names if name.isdigit()}

    # Only one of two processes gets a notice of preemption: both save and succeed.
    told = tmp_path / "told"
    pair = start(broken, 2, SETTINGS, hold=(4, told))
    runs.wait_until(lambda: has_reached(4), pair[0])
    pair[1].send_signal(signal.SIGTERM)
    told.touch()
    assert "saved" in runs.finish(pair[0])
    runs.finish(pair[1])
    saved = max(saved_steps())
    assert 4 <= saved < 32

    # One of four processes dies. The others wait for its part of a step, so they notice within
    # seconds and end with one line. If it died while they saved, they would have to wait for JAX's
    # heartbeat: so it dies after the next save, and well before the one that follows.
    next_save = (saved // 16 + 1) * 16
    killed = tmp_path / "killed"
    four = start(broken, 4, SETTINGS, hold=(next_save + 1, killed))
    runs.wait_until(lambda: has_reached(next_save + 1) and next_save in saved_steps(), four[0])
    runs.kill(four[3])
    killed.touch()
    for process in four[:3]:
        output, _ = process.communicate(timeout=240)
        if process.returncode:
            assert process.returncode == 3, output[-3000:]
            assert "another process is gone" in output and "Traceback" not in output
    assert any(process.returncode for process in four[:3])

    # A single process with as many devices as the pair resumes with the same batches.
    run_alone(broken, 2, SETTINGS)
    assert_same_run(broken, whole)


def test_a_process_whose_peer_never_comes_says_so(tmp_path):
    command = runs.command(tmp_path / "run", processes=(runs.free_port(), 2))
    process = runs.start([*command, "--join-timeout", "2"])
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 3, output
    assert output.strip().splitlines()[-1].startswith("error: not all processes met (127.0.0.1:")
