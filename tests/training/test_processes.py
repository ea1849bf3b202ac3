"""Contract 4 over real processes: two of them, over loopback, make the run that one makes."""

import socket

import numpy as np
import pytest

from tests.training import runs

pytestmark = pytest.mark.slow


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def test_two_processes_make_the_run_of_one(tmp_path):
    data = runs.write_data(tmp_path / "data.jsonl")
    few = ["train.steps=16", "train.eval_every=8", "train.preview_every=8"]
    one, two = tmp_path / "one", tmp_path / "two"
    runs.finish(runs.start(runs.command(data, tmp_path, one, overrides=few), devices=2))
    both = (free_port(), 2)
    processes = [
        runs.start(runs.command(data, tmp_path, two, overrides=few, processes=both, index=i))
        for i in range(2)
    ]
    for process in processes:
        runs.finish(process)
    got, expected = runs.records(two), runs.records(one)
    assert [record["step"] for record in got] == [record["step"] for record in expected]
    assert sum("loss" in record for record in got) == 4
    for a, b in zip(got, expected, strict=True):
        assert a.keys() == b.keys()
        for name in a.keys() & {"trained_tokens", "tokens", "task_tokens", "skipped"}:
            assert a[name] == b[name]  # The same examples, to the token.
        for name in a.keys() & {"loss", "nll", "grad_norm", "eval_loss"}:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-4)
