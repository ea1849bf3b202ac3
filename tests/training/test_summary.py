"""The last lines of a run: what training changed."""

import dataclasses
import json

from ift_jax.config.training import TrainConfig
from ift_jax.training.summary import FILES, file_lines, next_lines, summary_lines


def write(folder, name, records):
    lines = [json.dumps(record) + "\n" for record in records]
    (folder / name).write_text("".join(lines), encoding="utf-8")


def scores(value):
    """The metrics of two tasks, one of which cannot be computed."""
    of_one = {"exact_match": value, "stopped": 1.0, "rouge_l": None}
    return {"a": of_one, "b": of_one, "overall": of_one}


def test_losses_and_answers_before_and_after(tmp_path):
    metrics = [
        {"step": 0, "eval_loss": 2.5},
        {"step": 0, "preview_stop_rate": 0.0},
        {"step": 1, "nll": 2.4},
        {"step": 2, "nll": None},
        {"step": 2, "eval_loss": 1.25},
        {"step": 3, "nll": 1.1},
        {"step": 3, "eval_loss": 1.5},
        {"step": 3, "preview_stop_rate": 1.0},
        *({"step": step, "eval": scores(value)} for step, value in ((0, 0.0), (2, 0.75), (3, 0.5))),
    ]
    write(tmp_path, "metrics.jsonl", metrics)
    samples = [
        {"step": step, "prompt": f"Say {k}:\n", "completion": answer}
        for step, answer in ((0, "\u00e9\u00e9 " * 100), (3, "yes"))
        for k in range(3)
    ]
    write(tmp_path, "samples.jsonl", samples)
    lines = list(summary_lines(str(tmp_path), 80))
    assert lines[:9] == [
        "what changed:",
        "  held-out loss: 2.500 at step 0, 1.500 at step 3; lowest 1.250 at step 2",
        "  training loss: 2.400 at step 1, 1.100 at step 3",
        "  sampled answers that end by themselves: 0%, then 100%",
        "  answers to unseen examples, step 0 -> step 3:",
        "    mean over 2 tasks: exact match 0.000 -> 0.500",
        "    a: exact match 0.000 -> 0.500",
        "    b: exact match 0.000 -> 0.500",
        r"  prompt  'Say 0:\n'",
    ]
    assert lines.count("  after   'yes'") == 2
    assert max(map(len, lines)) <= 80


def test_the_ties_of_pairs_before_the_first_step_are_no_result(tmp_path):
    def evaluated(step, accuracy):
        return {"step": step, "eval_loss": 0.7, "eval_preference": {"accuracy": accuracy}}

    line = "  held-out pairs won by the chosen answer: "
    write(tmp_path, "metrics.jsonl", [evaluated(0, 0.05), evaluated(2, 0.5), evaluated(4, 0.75)])
    assert f"{line}50% at step 2, 75% at step 4" in list(summary_lines(str(tmp_path), 80))
    write(tmp_path, "metrics.jsonl", [evaluated(0, 0.05), evaluated(4, 0.75)])
    assert f"{line}75% at step 4" in list(summary_lines(str(tmp_path), 80))
    write(tmp_path, "metrics.jsonl", [evaluated(0, 0.05)])
    assert not any(line in shown for shown in summary_lines(str(tmp_path), 80))


def test_where_the_time_went_is_one_line(tmp_path):
    seconds = {
        "steps": 7200.0,
        "restarting": 700.0,
        "saving": 80.0,
        "compiling": 18.0,
        "other": 2.0,
    }
    before = {"step": 1, "seconds": {"steps": 1.0}}
    write(tmp_path, "goodput.jsonl", [before, {"step": 9, "seconds": seconds}])
    assert list(summary_lines(str(tmp_path), 80)) == [
        "time 2:13:20: steps 90%, restarting 9%, saving 1%"
    ]


def test_a_run_without_records_says_nothing_of_them(tmp_path):
    assert not list(summary_lines(str(tmp_path), 80))


def test_the_commands_that_come_next_can_be_typed_where_the_run_began(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert list(next_lines(str(tmp_path / "runs" / "my run"))) == [
        "what next:",
        "  ift chat --workdir 'runs/my run'",
        "  ift eval --workdir 'runs/my run'",
        "  ift export --workdir 'runs/my run' --output DIR",
    ]
    assert list(next_lines("/elsewhere/a"))[1] == "  ift chat --workdir /elsewhere/a"
    assert list(next_lines("gs://bucket/a"))[1] == "  ift chat --workdir gs://bucket/a"


def test_the_files_of_a_run_are_named_within_80_columns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs"
    folder.mkdir()
    for name in FILES:
        (folder / name).touch()
    first, *lines = file_lines(str(folder), str(folder))
    assert first == "files in runs:"
    assert [line.split()[0] for line in lines] == list(FILES)
    assert max(map(len, lines)) <= 80


def test_what_ranks_saved_states_is_named_by_its_field(tmp_path):
    field = "best_metric"
    assert field in {each.name for each in dataclasses.fields(TrainConfig)}
    (tmp_path / "checkpoints.json").touch()
    lines = [line.split(maxsplit=1) for line in file_lines(str(tmp_path), str(tmp_path))]
    assert f"train.{field}" in dict(lines)["checkpoints.json"]
