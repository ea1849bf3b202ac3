"""Who makes the parts of stores on this machine."""

from pathlib import Path

import pytest

from ift_jax.config.schema import Config
from ift_jax.preparation import executors
from ift_jax.preparation.shards import Part


@pytest.fixture
def made(monkeypatch):
    """Which executors were made, and what they were given."""
    log = []

    class Recorded:
        def __init__(self, name, n_processes=1):
            self.name, self.n_processes = name, n_processes
            log.append(f"{name} is made")

        def run(self, parts):
            log.append(f"{self.name} makes {len(parts)}")
            yield from ()

        def close(self):
            log.append(f"{self.name} ends")

    monkeypatch.setattr(executors, "InProcess", lambda *_: Recorded("one"))
    monkeypatch.setattr(executors, "Processes", lambda *given: Recorded("several", given[-1]))
    monkeypatch.setattr(executors, "_usable_cores", lambda: 2)
    return log


def test_processes_pay_by_all_that_is_made_and_make_batch_after_batch(made):
    """1,600 stores of 40 examples come in batches of which none has 50,000."""
    parts = [Part("task", "train", 0, 1, 0, 40, Path("store"))] * 3
    batches = (parts, parts[:1], parts)
    ran = {}
    for examples in (50_000, 49_999):
        made.clear()
        with executors.Local(Config(), {}, None, "", examples) as local:
            for batch in batches:
                assert list(local.run(batch)) == []
        ran[examples] = [line for line in made if line.endswith("is made")], made[2:]
    assert ran[50_000][1] == ["several makes 3", "one makes 1", "several makes 3", "several ends"]
    assert ran[49_999][1] == ["one makes 3", "one makes 1", "one makes 3", "several ends"]
    assert ran[50_000][0] == ran[49_999][0] == ["one is made", "several is made"]
