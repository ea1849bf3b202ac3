"""Metrics of answers while a run trains: from step 0 on, written once, and stopped at once."""

import json

import pytest

from ift_jax.commands import main
from ift_jax.config.schema import Config, DataConfig, EvaluationConfig, TrainConfig
from ift_jax.errors import UserError
from ift_jax.training.best_metric import check_best_metric, value_of
from ift_jax.training.early_stopping import EarlyStopping
from tests.training import in_process
from tests.training.test_metric_files import events_in

NAN = float("nan")
SETTINGS = [
    "train.eval_metrics_every=5",
    "train.eval_metrics_examples=3",
    "train.preview_prompts=0",
    "train.best_metric=eval/jsonl_in_process/rouge_l",
]


def evaluations(workdir):
    return (workdir / "evaluations.jsonl").read_text().splitlines()


def test_answers_are_scored_from_step_0_on_and_a_stop_is_obeyed_at_once(
    monkeypatch, tmp_path, capsys
):
    process = in_process.InProcess(monkeypatch, SETTINGS)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert process.train(whole) == 0
    events = list(process.events)
    printed = capsys.readouterr().out

    records = [record for record in in_process.records(whole) if "eval" in record]
    # At the interval, at the end, and for every checkpoint, because they are ranked by it.
    assert [record["step"] for record in records] == [0, 4, 5, 8, 10]
    [task] = set(records[0]["eval"]) - {"overall"}
    assert task == "jsonl_in_process"
    assert set(records[0]["eval"][task]) == {"exact_match", "rouge_l", "stopped"}
    lines = [json.loads(line) for line in evaluations(whole)]
    assert [(line["step"], line["which"]) for line in lines] == [
        (s, "eval") for s in (0, 4, 5, 8, 10)
    ]
    for line, record in zip(lines, records, strict=True):
        assert line["tasks"][task].items() >= record["eval"][task].items()
        assert line["tasks"][task]["examples"] == 3 and line["failures"] == []
        assert set(line["intervals"][task]) == {"exact_match", "rouge_l", "stopped"}
    assert "step 0/10 · unseen examples (1 task, 3 examples): exact match 0.000" in printed
    assert "answers to unseen examples, step 0 -> step 10:" in printed
    ratings = in_process.ratings(whole)
    assert {int(step): rating["value"] for step, rating in ratings.items()} == {
        record["step"]: record["eval"][task]["rouge_l"]
        for record in records
        if record["step"] in (4, 8, 10)
    }

    # `ift eval` adds its scores to the run's; its loss is that of the run, which reads packed rows.
    scores = tmp_path / "scores.json"
    eval_all = ["eval", "--workdir", str(whole), "--config.evaluation.examples=1000"]
    assert main.main([*eval_all, "--output", str(scores), "--track", "tensorboard"]) == 0
    result = json.loads(scores.read_text())["tasks"][task]
    assert result["examples"] > 3
    of_run = [r["eval_task_loss"] for r in in_process.records(whole) if "eval_loss" in r][-1]
    assert result["loss"] == pytest.approx(of_run[task], rel=1e-5)
    logged = [
        value.simple_value
        for event in events_in(whole / "tensorboard")
        for value in event.summary.value
        if value.tag == f"evaluation/eval/{task}/loss"
    ]
    assert logged == [pytest.approx(result["loss"])]
    assert main.main([*eval_all, "--track", "comet"]) == 2
    assert "--track: 'comet' is no tracker; expected some of tensorboard" in capsys.readouterr().err

    # A kill between the rating of a checkpoint and the record of its scores loses neither.
    rated = [at for at, name in enumerate(events, 1) if name == "rate ends"]
    killed = tmp_path / "killed"
    assert process.kill(killed, rated[0]) and process.train(killed) == 0
    assert in_process.records(killed) == in_process.records(whole)
    assert evaluations(killed) == evaluations(whole)
    assert in_process.ratings(killed) == ratings

    # 3 examples are 2 batches; a signal in the first ends the run before the second.
    starts = [at for at, name in enumerate(events, 1) if name == "_generate_blocks starts"]
    assert len(starts) == 2 * 5
    for at_event in (starts[0], starts[4]):
        after = process.stop(broken, at_event)
        assert not {"_generate_blocks starts", "_sums starts"} & set(after)
    assert process.train(broken) == 0
    assert in_process.records(broken) == in_process.records(whole)
    assert evaluations(broken) == evaluations(whole)
    assert in_process.ratings(broken).items() >= ratings.items()


def test_a_run_without_a_better_evaluation_ends_early_and_a_resumed_one_knows(
    monkeypatch, tmp_path, capsys
):
    """The eval loss falls, so none is larger than that at step 0."""
    settings = ["train.best_mode=max", "train.eval_every=2", "train.preview_prompts=0"]
    process = in_process.InProcess(monkeypatch, [*settings, "train.keep_best=0"])
    assert process.train(tmp_path, ["train.early_stopping_patience=2"]) == 0
    printed = capsys.readouterr().out
    assert process.n_steps_done == 4
    assert "stopped early at step 4: no better eval_loss in 2 evaluations than" in printed
    assert "what changed:" in printed and "at step 0, " in printed
    assert in_process.final_state(tmp_path)[0] == 4

    assert process.train(tmp_path, ["train.early_stopping_patience=2"]) == 0
    printed = capsys.readouterr().out
    assert (
        "nothing to do" in printed and "is complete: it stopped early at step 4, no bet" in printed
    )
    # With more patience, or none at all, it goes on.
    assert process.train(tmp_path, ["train.early_stopping_patience=3"]) == 0
    assert "stopped early at step 6" in capsys.readouterr().out
    assert process.n_steps_done == 6
    assert process.train(tmp_path, ["train.best_mode=auto"]) == 0  # Nothing reads it any more.
    assert in_process.final_state(tmp_path)[0] == 10


def test_evaluations_that_are_not_finite_are_never_the_best():
    counted = EarlyStopping(TrainConfig(early_stopping_patience=3))
    for step, loss in enumerate((NAN, 2.0, 3.0, NAN, 1.0, float("-inf"), 1.0)):
        counted.add(step, loss)
        assert not counted.is_over
    assert counted.best == (1.0, 4) and counted.since == 2
    counted.add(7, NAN)
    assert counted.is_over and "than 1 at step 4" in counted.describe()
    only_nan = EarlyStopping(TrainConfig(early_stopping_patience=1))
    only_nan.add(0, NAN)
    assert only_nan.is_over and only_nan.describe() == "no finite eval_loss in 1 evaluations"


class Tasks:
    tasks = ("gsm8k",)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("loss", "expected eval_loss, heldout_loss, eval/TASK/METRIC or heldout/TASK/METRIC"),
        ("eval/gsm8k", "expected eval_loss, heldout_loss, eval/TASK/METRIC"),
        ("heldout_loss", "data.heldout_mixture is empty"),
        ("heldout/gsm8k/accuracy", "'heldout' is not evaluated"),
        ("eval/gsm/accuracy", "no task 'gsm' is evaluated; did you mean 'gsm8k'"),
    ],
)
def test_a_best_metric_that_will_not_be_evaluated_is_refused(metric, message):
    def check(metric, **train):
        config = Config(
            train=TrainConfig(
                **{"keep_best": 1, "eval_metrics_every": 1, "best_metric": metric} | train
            ),
            data=DataConfig(),
            evaluation=EvaluationConfig(),
        )
        check_best_metric(config, {"eval": Tasks, "heldout": None})

    with pytest.raises(UserError, match=f"config.train.best_metric: '{metric}': {message}"):
        check(metric)
    check(metric, keep_best=0)  # Nothing depends on it.
    for fine in ("eval/gsm8k/exact_match", "eval/overall/x/y", "eval/gsm8k (free)/x", "eval_loss"):
        check(fine)
    with pytest.raises(UserError, match="is not evaluated; set train.eval_metrics_every"):
        check("eval/gsm8k/exact_match", eval_metrics_every=0)


def test_a_metric_that_no_task_has_is_named_with_those_that_there_are():
    train = TrainConfig(best_metric="eval/gsm8k/accuracy")
    record = {"eval": {"gsm8k": {"exact_match": 0.5, "rouge_l": None}}}
    with pytest.raises(UserError, match="gsm8k has no metric 'accuracy'; there are exact_match, r"):
        value_of(train, record)
    assert value_of(train, {"eval_loss": 1.0}) is None
    assert value_of(train, record, is_strict=False) != value_of(train, record, is_strict=False)
    exact = TrainConfig(best_metric="eval/gsm8k/exact_match")
    assert value_of(exact, record) == 0.5 and value_of(TrainConfig(), {"eval_loss": None}) != 0
