"""What a run writes about its metrics: JSON lines, and event files that TensorFlow can read."""

import json
import math

import pytest

from ift_jax.errors import UserError, WriteError
from ift_jax.training.event_file import EventFile
from ift_jax.training.metric_writer import MetricWriter
from ift_jax.training.step_lines import keep_lines, keep_lines_until
from tests.io.full_disk import files_of_at_most


def events_in(folder):
    """All events of a folder; TensorFlow checks the checksums of the records."""
    tf = pytest.importorskip("tensorflow")
    files = sorted(str(path) for path in folder.glob("events.out.tfevents.*"))
    records = tf.data.TFRecordDataset(files)
    return [tf.compat.v1.Event.FromString(record.numpy()) for record in records]


def scalars_of(event):
    return {value.tag: value.simple_value for value in event.summary.value}


def test_tensorflow_reads_the_events(tmp_path):
    file = EventFile(str(tmp_path / "tensorboard"), step=0)
    file.write_scalars(1, {"loss": 2.5, "task_nll/flan ü:v1": -1e-3})
    file.write_scalars(2**40, {"/loss": 1e300, "nan": float("nan"), "count": 7})
    file.close()
    version, first, second = events_in(tmp_path / "tensorboard")
    assert version.file_version == "brain.Event:2"
    assert first.step == 1 and first.wall_time > 1.7e9
    small = pytest.approx(-1e-3, rel=1e-6)
    assert scalars_of(first) == {"loss": 2.5, "task_nll/flan_ü_v1": small}
    assert second.step == 2**40
    assert scalars_of(second)["loss"] == math.inf and scalars_of(second)["count"] == 7
    assert math.isnan(scalars_of(second)["nan"])


def test_a_resumed_run_hides_the_later_steps_of_older_files(tmp_path):
    EventFile(str(tmp_path), step=12).close()
    _, start = events_in(tmp_path)
    assert start.step == 13
    assert start.session_log.status == start.session_log.START


def test_a_record_has_the_same_numbers_in_both_files(tmp_path):
    writer = MetricWriter(str(tmp_path), step=0)
    record = {"step": 3, "nll": 0.5, "time": {"mfu": None, "seconds": 2.0}, "task_nll": {"a": 1.5}}
    writer.write(record)
    writer.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == record
    _, event = events_in(tmp_path / "tensorboard")
    assert event.step == 3
    assert scalars_of(event) == {"nll": 0.5, "time/seconds": 2.0, "task_nll/a": 1.5}


def test_a_full_disk_is_named(tmp_path):
    for name, limit in (("metrics.jsonl", 1000), ("tensorboard", 1050)):
        (tmp_path / name).mkdir()
        writer = MetricWriter(str(tmp_path / name), step=0)
        with files_of_at_most(limit), pytest.raises(WriteError) as caught:
            writer.write({"step": 1, "x" * 1000: 1.0})  # The event is the longer one.
        path, _, reason = str(caught.value).partition(": ")
        assert path.startswith(str(tmp_path / name / name))
        assert reason == "cannot be written: File too large"


def test_numbers_that_are_not_finite_are_null_and_left_out_of_tensorboard(tmp_path):
    writer = MetricWriter(str(tmp_path), step=0)
    nan, inf = float("nan"), float("inf")
    writer.write({"step": 3, "loss": nan, "grad_norm": inf, "nll": 1.5, "task_nll": {"a": -inf}})
    writer.close()

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    record = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    nulls = {"loss": None, "grad_norm": None, "task_nll": {"a": None}}
    assert record == {"step": 3, "nll": 1.5, **nulls}
    _, event = events_in(tmp_path / "tensorboard")
    assert scalars_of(event) == {"nll": 1.5}


def test_a_resumed_run_knows_what_was_written_of_its_step(tmp_path):
    writer = MetricWriter(str(tmp_path), step=0)
    writer.write({"step": 4, "preview_stop_rate": 0.5})
    writer.write({"step": 5, "loss": 1.5})
    writer.write({"step": 5, "eval_loss": 1.5})
    writer.close()
    resumed = MetricWriter(str(tmp_path), step=5)
    assert resumed.names_at_start == {"step", "loss", "eval_loss"}


def test_lines_of_later_steps_and_an_incomplete_line_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert keep_lines_until(str(path), 2) == []  # There is nothing to drop yet.
    assert not path.exists()
    lines = [json.dumps({"step": step}) + "\n" for step in (0, 1, 2, 2, 3)]
    path.write_text("".join(lines) + '{"step": 2')
    assert keep_lines_until(str(path), 2) == [{"step": step} for step in (0, 1, 2, 2)]
    assert path.read_text() == "".join(lines[:4])
    keep_lines(str(path), lambda step: step != 1)
    assert path.read_text() == lines[0] + "".join(lines[2:4])
    path.write_text("no JSON\n")
    with pytest.raises(UserError, match="metrics.jsonl:1: "):
        keep_lines_until(str(path), 2)
    assert keep_lines_until(str(path), 0) == []  # A run that starts anew.
    assert path.read_text() == ""
