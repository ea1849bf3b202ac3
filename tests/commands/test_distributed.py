"""How one of several processes leaves when another is gone."""

import argparse
import os
import time

import jax
import pytest

from ift_jax.commands import distributed


class _Exit(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("index", [0, 1])
def test_process_0_stays_until_the_others_have_noticed_a_death(index, monkeypatch, capsys):
    """It is what tells JAX in the others that the run is whole."""
    events = []

    def end(code):
        events.append(f"exit {code}")
        raise _Exit

    def wait(seconds):
        # What the user reads does not wait.
        assert "another process is gone" in capsys.readouterr().err
        events.append(seconds)

    monkeypatch.setattr(distributed, "_join", lambda arguments, timeout: None)
    monkeypatch.setattr(jax, "process_index", lambda: index)
    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(time, "sleep", wait)
    args = argparse.Namespace(
        coordinator_address="127.0.0.1:1", num_processes=2, process_id=index, join_timeout=1
    )
    with pytest.raises(_Exit), distributed.joined(args):
        raise jax.errors.JaxRuntimeError("UNKNOWN: Connection closed by peer")
    stays, exited = events
    assert exited == "exit 3"
    assert 0 < stays < distributed.HEARTBEAT_SECONDS if index == 0 else stays == 0
