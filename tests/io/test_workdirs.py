"""Runs in a bucket: Orbax, TensorStore and TensorFlow's client against a fake service."""

import json
import os
import signal
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from ift_jax.checkpoint.manager import Checkpoints
from ift_jax.commands.main import main
from ift_jax.errors import UserError
from ift_jax.io.paths import Workdir
from tests.training import runs

pytest.importorskip("google.cloud.storage", reason="the extra gcs")
pytestmark = pytest.mark.usefixtures("one_device")


def test_a_copy_holds_the_small_files_and_pushes_changes(bucket, tmp_path):
    for name in (
        "config.json",
        "metrics.jsonl",
        "tokenizer/tokenizer.model",
        "checkpoints/5/x",
        "tensorboard/old",
    ):
        bucket.put(f"run/{name}", name.encode())
    for writes in (False, True):
        home = Workdir("gs://bucket/run/", writes=writes)
        local = Path(home.local)
        assert {str(p.relative_to(local)) for p in local.rglob("*") if p.is_file()} == {
            "config.json",
            "tokenizer/tokenizer.model",
            *["metrics.jsonl"][:writes],
        }
    (local / "tensorboard").mkdir()
    (local / "tensorboard" / "new").write_text("2")
    for text in ("1\n", "1\n2\n"):
        (local / "metrics.jsonl").write_text(text)
        home.push()
        assert bucket.content("run/metrics.jsonl") == text.encode()
    bucket.requests.clear()
    home.push()
    assert bucket.requests == []  # Nothing has changed.
    assert bucket.names("run/tensorboard/") == ["run/tensorboard/new", "run/tensorboard/old"]
    folder = str(tmp_path / "w")
    assert Workdir(folder, writes=True).local == folder  # A local one is itself.


def test_checkpoints(bucket):
    state = {"params": {"a": np.arange(8.0)}, "step": np.ones(())}
    with pytest.raises(UserError, match="gs://bucket/none: no checkpoints here"):
        Checkpoints("gs://bucket/none", read_only=True)
    checkpoints = Checkpoints("gs://bucket/c", keep=2)
    assert checkpoints.latest_step() is None
    for step in (1, 2, 3):
        checkpoints.save(step, jax.tree.map(lambda x, s=step: x * s, state))
    checkpoints.close()
    # A checkpoint that was cut off has no marker of success.
    for name in bucket.names("c/checkpoints/3/"):
        if not name.endswith("commit_success.txt"):
            bucket.put(name.replace("/3/", "/4/"), bucket.content(name))
    again = Checkpoints("gs://bucket/c", keep=2)
    assert again.steps() == [2, 3] and again.latest_step() == 3
    restored = again.restore(3, state)
    np.testing.assert_array_equal(restored["params"]["a"], 3 * np.arange(8.0))
    assert not bucket.names("c/checkpoints/4/")
    again.close()


def test_a_bucket_that_cannot_be_used(bucket, capsys, monkeypatch):
    """The error is one line, with status 2, before JAX looks for a device."""
    monkeypatch.setattr(jax, "devices", None)
    monkeypatch.setattr("ift_jax.commands.distributed.joined", None)
    data = f"configs/jsonl.py:{runs.shared_data()}"

    def refused(workdir, command="train"):
        flags = ["--config", data] if command == "train" else ["--prompt", "x"]
        assert main([command, *flags, "--workdir", workdir]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line.removeprefix(f"error: {workdir}: ")

    for command in ("train", "generate"):
        line = refused("gs://other/run", command)
        assert line.startswith("the bucket cannot be used: 404") and "does not exist" in line
    for denied in ("GET .*/b/bucket[?]", "GET .*/o[?].*prefix=run", "POST /upload"):
        bucket.denied = [denied]
        line = refused("gs://bucket/run-denied")
        bucket.denied = []
        assert "cannot be used: 403" in line and "does not have that access" in line
    assert refused("s3://bucket/run") == "expected a local path or gs://BUCKET/PATH"
    assert refused("gs://bucket/none", "generate").startswith("no config.json here")
    monkeypatch.setitem(sys.modules, "google.cloud.storage", None)
    assert refused("gs://bucket/x") == (
        "a run in a bucket needs google-cloud-storage: run launch/setup.sh gcs"
    )


def test_outputs_of_commands_must_be_local(capsys):
    for command in (["export"], ["generate", "--prompt", "x"], ["eval", "--config", "x"]):
        assert main([*command, "--workdir", "x", "--output", "gs://bucket/o"]) == 2
        assert "expected a local or mounted path" in capsys.readouterr().err


SETTINGS = [
    "train.steps=12",
    "train.eval_every=6",
    "train.preview_every=6",
    "train.save_every=3",
    "train.keep_best=0",
    "train.max_to_keep=2",
    "train.log_every=2",
    "train.gradient_accumulation_steps=1",
    "train.report=True",
    "evaluation.examples=2",
]


def flags(workdir):
    """The flags of `ift train`, without the command's name."""
    return runs.command(workdir, overrides=SETTINGS)[4:]


@pytest.fixture(scope="module")
def finished(bucket, tmp_path_factory):
    """A run in gs://bucket/r that was stopped by a signal and resumed.

    Returns the workdir of the same run on a disk, without interruption.
    """
    whole = tmp_path_factory.mktemp("runs") / "r"
    assert main(["train", *flags(whole)]) == 0
    arrived = bucket.put

    def put(name, content):
        arrived(name, content)
        if name == "r/checkpoints/3/commit_success.txt":
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bucket, "put", put)
        assert main(["train", *flags("gs://bucket/r")]) == 0
    stopped = max(record["step"] for record in untimed(bucket.content("r/metrics.jsonl")))
    assert stopped < 12 and not bucket.names("r/evaluation.json")
    assert main(["train", *flags("gs://bucket/r")]) == 0
    return whole


def untimed(content):
    records = map(json.loads, content.splitlines())
    return [{k: v for k, v in record.items() if k != "time"} for record in records]


@pytest.mark.slow
def test_a_run_in_a_bucket_equals_the_run_on_a_disk(bucket, finished, tmp_path, capsys):
    for name in ("metrics.jsonl", "samples.jsonl", "answers.jsonl"):
        there, here = bucket.content(f"r/{name}"), (finished / name).read_bytes()
        assert untimed(there) == untimed(here) != []
    for name in ("config.json", "evaluation.json"):
        assert bucket.content(f"r/{name}") == (finished / name).read_bytes()
    page = bucket.content("r/report.html").decode()
    assert "<title>r</title>" in page and "Step 12 of 12, complete." in page
    assert len(bucket.names("r/tensorboard/events")) == 2
    kept = {name.split("/")[2] for name in bucket.names("r/checkpoints/")} - {""}
    assert len(kept) == 2 and "12" in kept  # The other depends on when it was stopped.
    state, expected = (
        jax.tree.leaves(Checkpoints(where, read_only=True)._manager.restore(12))
        for where in ("gs://bucket/r", finished)
    )
    for a, b in zip(state, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))

    # The answers, scores and exports of other commands are equal as well.
    outputs = []
    for where in ("gs://bucket/r", str(finished)):
        folder = tmp_path / f"exported{len(outputs)}"
        assert main(["eval", *flags(where)]) == 0
        assert main(["generate", "--workdir", where, "--prompt", "red"]) == 0
        assert main(["export", "--workdir", where, "--output", str(folder)]) == 0
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        card = files.pop("README.md").decode()  # It names the workdir and the folder.
        texts = [
            text.replace(where, "").replace(str(folder), "").replace(folder.name, "")
            for text in (capsys.readouterr().out, card)
        ]
        assert "| loss per token on | before |" in card  # metrics.jsonl was read there, too.
        outputs.append([texts, files])
    assert outputs[0] == outputs[1]
