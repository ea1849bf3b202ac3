"""A run that is killed at any instant ends as if it had not been interrupted."""

import json
import signal

import jax
import numpy as np
import pytest

from ift_jax.checkpoint.manager import Checkpoints
from ift_jax.commands.main import main
from tests.training import runs

pytestmark = pytest.mark.slow


def final_state(workdir):
    """The step and the state of the newest checkpoint."""
    checkpoints = Checkpoints(workdir, read_only=True)
    step = checkpoints.latest_step()
    return step, checkpoints._manager.restore(step)


def samples(workdir):
    return [json.loads(line) for line in (workdir / "samples.jsonl").read_text().splitlines()]


def assert_identical(workdir, expected):
    step, state = final_state(workdir)
    expected_step, expected_state = final_state(expected)
    assert step == expected_step == 60
    leaves, others = jax.tree.leaves(state), jax.tree.leaves(expected_state)
    assert len(leaves) == len(others) > 20
    for a, b in zip(leaves, others, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    assert runs.records(workdir) == runs.records(expected)
    assert samples(workdir) == samples(expected)


@pytest.fixture
def run_whole(tmp_path, one_device):
    """Makes the same run without interruption, in this process; returns its workdir."""

    def run(architecture="decoder", overrides=()):
        assert main(runs.command(tmp_path / "whole", architecture, overrides)[3:]) == 0
        return tmp_path / "whole"

    return run


# A resumed encoder-decoder is compared to the bit in test_encoder_decoder_run.py.
@pytest.mark.parametrize("architecture", ["decoder"])
def test_killed_and_restarted(tmp_path, architecture, run_whole, capsys):
    broken = tmp_path / "broken"
    expected = run_whole(architecture)
    steps = [record["step"] for record in runs.records(expected) if "loss" in record]
    assert steps == list(range(4, 61, 4))

    def last_step():
        return max([0, *(record["step"] for record in runs.records(broken))])

    def saving():
        folder = broken / "checkpoints"
        names = [path.name for path in folder.iterdir()] if folder.exists() else []
        return any("tmp" in name for name in names)

    def has_reached_step_24():
        return last_step() >= 24

    killed_at = []
    # In the first save and between saves, or between saves and in a later one.
    moments = [saving, has_reached_step_24]
    for moment in moments if architecture == "decoder" else moments[::-1]:
        # It does not come to its end before it is killed, however late that is.
        never = tmp_path / "never"
        process = runs.start(runs.held(runs.command(broken, architecture), 52, never))
        runs.wait_until(lambda moment=moment: moment() or last_step() >= 52, process)
        runs.kill(process)
        killed_at.append(last_step())
    assert len(killed_at) == 2 and max(killed_at) < 60
    # What resumes it is another process than those: this one, which has imported everything.
    assert main(runs.command(broken, architecture)[3:]) == 0
    assert "resumed at step" in capsys.readouterr().out
    assert_identical(broken, expected)


def test_sigterm_saves_and_exits_0(tmp_path, run_whole, capsys):
    broken = tmp_path / "broken"
    rare = ["train.save_every=0", "train.keep_best=0"]
    told = tmp_path / "told"
    process = runs.start(runs.held(runs.command(broken, overrides=rare), 40, told))
    runs.wait_until(lambda: any(r["step"] >= 8 for r in runs.records(broken)), process)
    process.send_signal(signal.SIGTERM)
    told.touch()
    output = runs.finish(process)
    assert "stopped by a signal at step" in output
    stopped_at = Checkpoints(broken, read_only=True).latest_step()
    assert 8 <= stopped_at < 60
    assert main(runs.command(broken, overrides=rare)[3:]) == 0
    assert f"resumed at step {stopped_at}" in capsys.readouterr().out
    assert_identical(broken, run_whole(overrides=rare))
