"""Preparing in several processes, and after one that was killed: the same bytes, made once."""

import os
import signal
import time

import pytest

from ift_jax.config.schema import TokenizerConfig
from ift_jax.io.locks import build_lock
from ift_jax.preparation import executors, shards
from ift_jax.preparation.prepare import prepare
from tests.preparation.runs import changed, child, contents, quiet, store_of

pytestmark = pytest.mark.usefixtures("own_registry")
# Prepares, but is not done before it is killed, however late that comes.
CODE_THAT_WAITS = """
import time
from ift_jax.preparation.store_writer import PartBuilder
write = PartBuilder.write
def write_or_wait(self, path):
    if path.name.startswith("part-00030"):
        time.sleep(600)
    return write(self, path)
PartBuilder.write = write_or_wait
prepare(config, log=log)
"""


@pytest.mark.slow
def test_killed_halfway_and_restarted_gives_the_same_bytes(config, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "EXAMPLES_PER_SHARD", 5)
    process = child(config, CODE_THAT_WAITS, 5)
    stores = tmp_path / "stores"
    deadline = time.time() + 240
    while len(list(stores.glob("made-*.partial/*.json"))) < 3:
        assert process.poll() is None and time.time() < deadline, process.communicate()
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (partial,) = stores.glob("made-*.partial")
    finished = {p.name: p.stat().st_mtime_ns for p in partial.glob("part-*")}
    finished = {n: t for n, t in finished.items() if (partial / n).with_suffix(".json").exists()}
    assert 6 <= len(finished) < 38
    name = f".part-00009.arrow.{os.uname().nodename}-{process.pid}-0123456789ab.tmp"
    (partial / name).write_bytes(b"half")  # Its process is dead, so it is removed.
    lines = []
    store = prepare(config, log=lines.append).mixture.stores[0]
    assert any("parts are there already" in line for line in lines)
    assert {n: (store.path / n).stat().st_mtime_ns for n in finished} == finished  # Not redone.
    whole = store_of(changed(config, data__store_dir=str(tmp_path / "other")))
    assert contents(store.path) == contents(whole.path)
    assert not partial.exists() and len(contents(store.path)) == 39


@pytest.mark.slow
def test_two_processes_that_want_the_same_store(config, tmp_path):
    prepare(config, log=quiet)
    wanted = changed(config, data__max_length=400)
    name = store_of(changed(wanted, data__store_dir=str(tmp_path / "other"))).path.name
    # The tokenizer has another place there, not another content; so the name is the same.
    ours = []
    with build_lock(tmp_path / "stores", name, quiet):
        process = child(wanted, "prepare(config, log=log)")
        theirs = []
        for line in process.stdout:
            theirs.append(line)
            if "waiting for another process" in line:
                break
    prepare(wanted, log=ours.append)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    lines = [*theirs, *out.splitlines(), *"\n".join(ours).splitlines()]
    # The last part of three was made once, by whichever came first.
    assert sum(line.strip().startswith("part 3 of 3") for line in lines) == 1
    assert len(contents(tmp_path / "stores" / name)) == 7


# What an exception in such a process becomes is tested in test_users_code.py.
@pytest.mark.slow
def test_processes_make_the_same_bytes(config, tmp_path, monkeypatch, capfd):
    tokenizer = TokenizerConfig(prepare(config, log=quiet).tokenizer_path)
    config = changed(config, tokenizer=tokenizer, data__variants=2)
    alone = store_of(config)
    several = changed(config, data__processes=2, data__store_dir=str(tmp_path / "other"))
    # No part is made in this process.
    monkeypatch.setattr(executors, "write_part", None)
    capfd.readouterr()
    prepare(several, log=quiet)
    assert capfd.readouterr().err == ""
    assert contents(alone.path) == contents(tmp_path / "other" / alone.path.name)
