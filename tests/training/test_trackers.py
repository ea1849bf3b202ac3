"""What trackers are handed is read back through their own libraries."""

import importlib.util
import json
import os
import sqlite3
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ift_jax.errors import UserError
from ift_jax.training import loop, metric_writer, trackers
from ift_jax.training.metric_writer import MetricWriter

CONFIG = {"seed": 3, "train": {"steps": 2, "track": ["x"]}, "format": {"template": "y" * 900}}
RECORDS = [
    {"step": 1, "loss": 2.5, "task_nll": {"a/b": 2.0}, "grad_norm": float("nan")},
    {"step": 2, "loss": 1.5, "time": {"mfu": None}},
]


@pytest.fixture(autouse=True)
def no_settings_of_the_user(monkeypatch, tmp_path):
    for name in os.environ:
        if name.startswith(("WANDB_", "MLFLOW_", "TRACKIO_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()


def write(workdir, name, records, step=0, *, failed=False):
    """Write records as one attempt of a run, and return the run's name at the tracker."""
    workdir.mkdir(parents=True, exist_ok=True)
    opened = trackers.open_trackers([name], str(workdir), CONFIG, resumes=step > 0)
    writer = MetricWriter(str(workdir), step, opened)
    for record in records:
        writer.write(record)
    writer.close(failed=failed)
    return opened[0].id


def log_records(content):
    """Yields the records of a file in LevelDB's log format, after the tracker's 7 bytes."""
    block_size, header_size, full, last = 32768, 7, 1, 4
    at = header_size
    parts = []
    while at + header_size <= len(content):
        if block_size - at % block_size < header_size:
            at += block_size - at % block_size
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        parts.append(content[at + header_size : at + header_size + length])
        at += header_size + length
        if kind in (full, last):
            yield b"".join(parts)
            parts = []


def wandb_history(folder):
    """What the tracker's offline files in a workdir hold, file after file."""
    wandb = pytest.importorskip("wandb", reason="the extra wandb is not installed")
    from wandb.proto import wandb_internal_pb2

    # The tracker's own process may still be writing when a run has ended. This waits for it, as the
    # exit of a command does.
    wandb.teardown()
    history = []
    for file in sorted(Path(folder, "wandb").glob("offline-run-*/run-*.wandb")):
        history.append([])
        for data in log_records(file.read_bytes()):
            record = wandb_internal_pb2.Record.FromString(data)
            if record.HasField("history"):
                items = record.history.item
                history[-1].append(
                    {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items}
                )
    return history


def test_weights_and_biases_writes_offline_without_a_key(tmp_path):
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    run_id = write(tmp_path / "run", "wandb", RECORDS[:1])
    time.sleep(1.0 - time.time() % 1.0)  # A folder is named after the second of its attempt.
    assert write(tmp_path / "run", "wandb", RECORDS[1:], step=1) == run_id
    [first], [second] = wandb_history(tmp_path / "run")
    assert [(row["loss"], row["step"]) for row in (first, second)] == [(2.5, 1), (1.5, 2)]
    assert first["task_nll/a/b"] == 2.0
    assert "grad_norm" not in first


def test_weights_and_biases_keeps_the_scores_of_an_earlier_step(tmp_path):
    """Such as those of `ift eval` for a checkpoint before the last one."""
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    records = [{"step": 60, "loss": 1.5}, {"step": 50, "score": 0.75}]
    write(tmp_path / "run", "wandb", records)
    [history] = wandb_history(tmp_path / "run")
    assert [(row["step"], row.get("score")) for row in history] == [(60, None), (50, 0.75)]


def test_weights_and_biases_keeps_runs_of_the_same_folder_name_apart(tmp_path):
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    run_ids = [write(tmp_path / name / "run", "wandb", RECORDS[:1]) for name in ("a", "b", "a")]
    assert len(set(run_ids)) == 3  # The last one starts anew where the first one was.


def test_mlflow_writes_into_the_workdir(tmp_path):
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    from mlflow.tracking import MlflowClient

    run_id = write(tmp_path / "run", "mlflow", RECORDS[:1], failed=True)
    client = MlflowClient(tracking_uri=(tmp_path / "run" / "mlflow").as_uri())
    assert client.get_run(run_id).info.status == "FAILED"
    assert write(tmp_path / "run", "mlflow", RECORDS[1:], step=1) == run_id
    run = client.get_run(run_id)
    assert run.info.run_name == "run"
    assert run.info.status == "FINISHED"
    assert run.data.params["train.steps"] == "2"
    history = client.get_metric_history(run_id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 2.5), (2, 1.5)]
    assert client.get_metric_history(run_id, "task_nll/a/b")[0].value == 2.0
    assert "grad_norm" not in run.data.metrics


def test_a_run_that_mlflow_does_not_have_goes_on_in_a_new_one(tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    first = write(tmp_path / "run", "mlflow", RECORDS[:1])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "another_server").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    second = write(tmp_path / "run", "mlflow", RECORDS[1:], step=1)
    assert second != first
    assert write(tmp_path / "run", "mlflow", RECORDS[1:], step=1) == second


def test_mlflow_keeps_runs_of_the_same_folder_name_apart(tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    from mlflow.tracking import MlflowClient

    uri = (tmp_path / "server").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    run_ids = [write(tmp_path / name / "run", "mlflow", RECORDS[:1]) for name in ("a", "b", "a")]
    client = MlflowClient(tracking_uri=uri)
    [experiment] = [found for found in client.search_experiments() if found.name == "ift_jax"]
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.run_id for run in runs} == set(run_ids)
    assert [run.data.metrics["loss"] for run in runs] == [2.5] * 3


# Trackio chooses its folder when it is imported, so each attempt of a run is a process.
TRACKIO_ATTEMPT = """
import sys
from ift_jax.training import loop, metric_writer, trackers

workdir, step, loss = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
[tracker] = trackers.open_trackers(["trackio"], workdir, {"seed": 3}, resumes=step > 1)
tracker.log(step, {"loss": loss})
tracker.close()
print(tracker.id)
"""


@pytest.mark.skipif(
    importlib.util.find_spec("trackio") is None, reason="the extra trackio is not installed"
)
def test_trackio_keeps_runs_of_the_same_folder_name_apart_and_goes_on_in_each(tmp_path):
    environment = os.environ | {"TRACKIO_DIR": str(tmp_path / "trackio")}
    names = []
    for folder, step, loss in (("a", 1, 2.5), ("b", 1, 3.5), ("a", 2, 1.5)):
        workdir = tmp_path / folder / "run"
        workdir.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-c", TRACKIO_ATTEMPT, workdir, str(step), str(loss)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        names.append(done.stdout.splitlines()[-1])
    a, b, resumed = names
    assert a == resumed != b
    assert a.startswith("run-")
    [database] = Path(tmp_path, "trackio").glob("ift_jax*.db")
    with sqlite3.connect(database) as connection:
        rows = connection.execute("SELECT run_name, step, metrics FROM metrics").fetchall()
    found = {(name, step, json.loads(metrics)["loss"]) for name, step, metrics in rows}
    assert found == {(a, 1, 2.5), (a, 2, 1.5), (b, 1, 3.5)}
    assert len(rows) == 3


def test_a_damaged_file_of_names_is_refused(tmp_path):
    (tmp_path / trackers.IDS_FILE).write_text('{"wandb": 7}')
    with pytest.raises(UserError, match=r"trackers.json: wandb: is 7, expected the run's name"):
        trackers.open_trackers(["wandb"], str(tmp_path), CONFIG, resumes=True)


def test_a_tracker_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(UserError, match=r"wandb is not installed .* run launch/setup.sh wandb"):
        trackers.check_installed(["wandb"])


def test_only_finite_numbers_are_handed_over():
    values = {"a": 1, "b": 2.5, "c": float("inf"), "d": None, "e": "x"}
    assert trackers.finite(values) == {"a": 1.0, "b": 2.5}


def recorder(handed):
    """A tracker that appends what it is handed to a list."""

    class Recorder(trackers.Tracker):
        def __init__(self, module, workdir, config, known_id):
            self.id = "seven"
            handed.append(("began", config["train"]["track"], known_id))

        def log(self, step, values):
            handed.append((step, values))

        def close(self, *, failed=False):
            handed.append("failed" if failed else "closed")

    return Recorder


def test_a_run_hands_its_metrics_over(tmp_path, monkeypatch):
    from tests.training import in_process

    handed = []
    monkeypatch.setitem(trackers.TRACKERS, "wandb", recorder(handed))
    monkeypatch.setitem(__import__("sys").modules, "wandb", __import__("json"))
    process = in_process.InProcess(monkeypatch)
    process.bad_steps = {4, 5}
    diverging = ["train.track=('wandb',)", "train.max_bad_steps=2"]
    assert process.train(tmp_path / "diverging", diverging) == 2
    assert handed[-1] == "failed"
    process.bad_steps = set()
    handed.clear()
    assert process.train(tmp_path / "run", ["train.track=('wandb',)"]) == 0
    assert handed[0] == ("began", ("wandb",), None)
    assert handed[-1] == "closed"
    written = in_process.records(tmp_path / "run")
    steps = [item[0] for item in handed if isinstance(item[0], int)]
    assert steps == [record["step"] for record in written]
    assert json.loads((tmp_path / "run" / "trackers.json").read_text()) == {"wandb": "seven"}


def refuse(*args, **kwargs):
    raise UserError("refused")


@pytest.mark.parametrize(
    ("owner", "name"),
    [(loop, "Prefetcher"), (metric_writer, "EventFile"), (trackers, "json_bytes")],
)
def test_a_run_that_fails_before_its_first_step_is_closed_as_failed(
    owner, name, tmp_path, monkeypatch
):
    from tests.training import in_process

    handed = []
    monkeypatch.setitem(trackers.TRACKERS, "wandb", recorder(handed))
    monkeypatch.setitem(sys.modules, "wandb", json)
    process = in_process.InProcess(monkeypatch)
    monkeypatch.setattr(owner, name, refuse)
    assert process.train(tmp_path / "run", ["train.track=('wandb',)"]) == 2
    assert handed == [("began", ("wandb",), None), "failed"]


def test_a_tracker_that_cannot_be_opened_leaves_no_other_open(tmp_path, monkeypatch):
    handed = []
    monkeypatch.setattr(trackers, "TRACKERS", {"json": recorder(handed), "os": refuse})
    with pytest.raises(UserError, match="^refused$"):
        trackers.open_trackers(["json", "os"], str(tmp_path), CONFIG, resumes=False)
    assert handed[1:] == ["failed"]


def test_a_file_that_cannot_be_closed_leaves_no_tracker_open(tmp_path, monkeypatch):
    handed = []
    monkeypatch.setattr(trackers, "TRACKERS", {"json": recorder(handed)})
    opened = trackers.open_trackers(["json"], str(tmp_path), CONFIG, resumes=False)
    writer = MetricWriter(str(tmp_path), 0, opened)
    monkeypatch.setattr(writer._events, "close", refuse)
    with pytest.raises(UserError, match="^refused$"):
        writer.close(failed=True)
    assert handed[1:] == ["failed"]
