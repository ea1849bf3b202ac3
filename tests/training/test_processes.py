"""Several real processes on one machine make the same run as one, even if some of them die."""

import json
import signal

import numpy as np
import pytest

from tests.training import runs

pytestmark = pytest.mark.slow


def start(workdir, count, devices=1, port=None, **options):
    """Starts the `count` processes of a run, with this many devices each."""
    processes = (port or runs.free_port(), count) if count > 1 else None
    return [
        runs.start(runs.command(workdir, processes=processes, index=i, **options), devices)
        for i in range(count)
    ]


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


def test_two_and_four_processes_make_the_run_of_one(tmp_path):
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
    one, two, four = (tmp_path / name for name in ("one", "two", "four"))
    for workdir, count, devices in ((one, 1, 4), (two, 2, 2), (four, 4, 1)):
        for process in start(workdir, count, devices, overrides=settings):
            runs.finish(process)
    for several in (two, four):
        assert sum("loss" in record for record in runs.records(several)) == 3
        assert_same_run(several, one)
        # Only process 0 writes them. The numbers are exactly the same, each example is there once.
        files = ["answers.jsonl", "samples.jsonl", "evaluation.json", "evaluations.jsonl"]
        for name in [*files, "checkpoints.json"]:
            assert (several / name).read_text() == (one / name).read_text() != "", name
    answers = [json.loads(line) for line in (one / "answers.jsonl").read_text().splitlines()]
    assert len({answer["index"] for answer in answers}) == len(answers) == 4


def test_a_run_survives_a_signal_and_a_death_with_other_numbers_of_processes(tmp_path):
    settings = [
        "train.steps=30",
        "train.eval_every=0",
        "train.preview_prompts=0",
        "mesh.data=-1",
        "train.save_every=15",
    ]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    (process,) = start(whole, 1, 2, overrides=settings)
    runs.finish(process)

    def reached(step):
        return lambda: any(record["step"] >= step for record in runs.records(broken))

    # Only one of two processes gets a notice of preemption: both save and succeed.
    pair = start(broken, 2, overrides=settings)
    runs.wait_until(reached(4), pair[0])
    pair[1].send_signal(signal.SIGTERM)
    assert "saved" in runs.finish(pair[0])
    runs.finish(pair[1])
    saved = max(int(path.name) for path in (broken / "checkpoints").iterdir())
    assert 4 <= saved < 30

    # One of four processes dies. The others wait for its part of a step, so they notice within
    # seconds and end with one line. If it died while they saved, they would have to wait for JAX's
    # heartbeat.
    four = start(broken, 4, overrides=settings)
    runs.wait_until(reached(16), four[0])
    runs.kill(four[3])
    for process in four[:3]:
        output, _ = process.communicate(timeout=60)
        if process.returncode:
            assert process.returncode == 3, output[-3000:]
            assert "another process is gone" in output and "Traceback" not in output
    assert any(process.returncode for process in four[:3])

    # A single process with as many devices as the pair resumes with the same batches.
    (process,) = start(broken, 1, 2, overrides=settings)
    runs.finish(process)
    assert_same_run(broken, whole)


def test_a_process_whose_peer_never_comes_says_so(tmp_path):
    command = runs.command(tmp_path / "run", processes=(runs.free_port(), 2))
    process = runs.start([*command, "--join-timeout", "2"])
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 3, output
    assert output.strip().splitlines()[-1].startswith("error: not all processes met (127.0.0.1:")
