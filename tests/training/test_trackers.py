"""What trackers are handed is read back through their own libraries."""

import json
import sqlite3
import struct
from pathlib import Path

import pytest

from ift_jax.errors import UserError
from ift_jax.training import trackers
from ift_jax.training.metric_writer import MetricWriter

CONFIG = {"seed": 3, "train": {"steps": 2, "track": ["x"]}, "format": {"template": "y" * 900}}
RECORDS = [
    {"step": 1, "loss": 2.5, "task_nll": {"a/b": 2.0}, "grad_norm": float("nan")},
    {"step": 2, "loss": 1.5, "time": {"mfu": None}},
]


@pytest.fixture(autouse=True)
def no_settings_of_the_user(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "MLFLOW_TRACKING_URI", "TRACKIO_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()


def write(workdir, name, records, step=0):
    workdir.mkdir(exist_ok=True)
    opened = trackers.open_trackers([name], str(workdir), CONFIG)
    writer = MetricWriter(str(workdir), step, opened)
    for record in records:
        writer.write(record)
    writer.close()
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


def test_weights_and_biases_writes_offline_without_a_key(tmp_path):
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    from wandb.proto import wandb_internal_pb2

    run_id = write(tmp_path / "run", "wandb", RECORDS[:1])
    assert write(tmp_path / "run", "wandb", RECORDS[1:], step=1) == run_id
    history = []
    files = sorted(Path(tmp_path, "run", "wandb").glob(f"offline-run-*/run-{run_id}.wandb"))
    assert len(files) == 2
    for file in files:
        for data in log_records(file.read_bytes()):
            record = wandb_internal_pb2.Record.FromString(data)
            if record.HasField("history"):
                items = record.history.item
                history.append(
                    {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items}
                )
    assert [(row["loss"], row["_step"]) for row in history] == [(2.5, 1), (1.5, 2)]
    assert history[0]["task_nll/a/b"] == 2.0
    assert "grad_norm" not in history[0]


def test_mlflow_writes_into_the_workdir(tmp_path):
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    from mlflow.tracking import MlflowClient

    run_id = write(tmp_path / "run", "mlflow", RECORDS[:1])
    assert write(tmp_path / "run", "mlflow", RECORDS[1:], step=1) == run_id
    client = MlflowClient(tracking_uri=(tmp_path / "run" / "mlflow").as_uri())
    run = client.get_run(run_id)
    assert run.info.run_name == "run"
    assert run.info.status == "FINISHED"
    assert run.data.params["train.steps"] == "2"
    history = client.get_metric_history(run_id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 2.5), (2, 1.5)]
    assert client.get_metric_history(run_id, "task_nll/a/b")[0].value == 2.0
    assert "grad_norm" not in run.data.metrics


def test_trackio_writes_into_its_own_folder(tmp_path):
    trackio = pytest.importorskip("trackio", reason="the extra trackio is not installed")
    name = write(tmp_path / "run", "trackio", RECORDS[:1])
    assert write(tmp_path / "run", "trackio", RECORDS[1:], step=1) == name == "run"
    [database] = Path(trackio.TRACKIO_DIR).glob("ift_jax*.db")
    with sqlite3.connect(database) as connection:
        rows = connection.execute("SELECT step, metrics FROM metrics ORDER BY step").fetchall()
    assert [(step, json.loads(metrics)["loss"]) for step, metrics in rows] == [(1, 2.5), (2, 1.5)]


def test_a_tracker_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(UserError, match=r"wandb is not installed .* run launch/setup.sh wandb"):
        trackers.check_installed(["wandb"])


def test_only_finite_numbers_are_handed_over():
    values = {"a": 1, "b": 2.5, "c": float("inf"), "d": None, "e": "x"}
    assert trackers.finite(values) == {"a": 1.0, "b": 2.5}


def test_a_run_hands_its_metrics_over(tmp_path, monkeypatch):
    from tests.training import in_process

    handed = []

    class Recorder(trackers.Tracker):
        def __init__(self, module, workdir, config, known_id):
            self.id = "seven"
            handed.append(("began", config["train"]["track"], known_id))

        def log(self, step, values):
            handed.append((step, values))

        def close(self):
            handed.append("closed")

    monkeypatch.setitem(trackers.TRACKERS, "wandb", Recorder)
    monkeypatch.setitem(__import__("sys").modules, "wandb", __import__("json"))
    process = in_process.InProcess(monkeypatch)
    assert process.train(tmp_path / "run", ["train.track=('wandb',)"]) == 0
    assert handed[0] == ("began", ("wandb",), None)
    assert handed[-1] == "closed"
    written = in_process.records(tmp_path / "run")
    steps = [item[0] for item in handed if isinstance(item[0], int)]
    assert steps == [record["step"] for record in written]
    assert json.loads((tmp_path / "run" / "trackers.json").read_text()) == {"wandb": "seven"}
