"""Runs of a sweep: done once, resumed, and one that fails takes no other with it."""

import dataclasses
import json
import os
import re
import signal
import types

import numpy as np
import pytest
import scipy.stats

from ift_jax.checkpoint.run_description import RunRecord
from ift_jax.commands.main import main
from ift_jax.config.schema import Config, EvaluationConfig
from ift_jax.errors import UserError
from ift_jax.evaluation import known_metrics
from ift_jax.io.stop_signals import StopSignals
from ift_jax.metrics import SEQIO_METRICS
from ift_jax.sweep import page
from ift_jax.sweep import runs as sweep_runs
from ift_jax.sweep.metric_check import check_metrics
from ift_jax.sweep.results import RunScores, read_scores, summarized
from ift_jax.sweep.runs import Ended, Planned, run_all, train_process
from ift_jax.sweep.settings import Setting
from tests.small_models import write_workdir

TITLE = "held-out tasks, never trained"


class Trainer:
    """Stands for `ift train`: writes what a run leaves, and remembers what it was asked."""

    def __init__(self, scores=None, fails=(), stops=()):
        self.asked = []
        self._scores = scores or {}
        self._fails = fails
        self._stops = stops

    def __call__(self, run, log_file, signals):
        folder = run.setting.folder
        self.asked.append(folder)
        os.makedirs(run.workdir, exist_ok=True)
        if folder in self._fails:
            return Ended(2, "config.train.steps: wrong")
        if folder in self._stops:
            signals.number = signal.SIGTERM
            return Ended(0, "")
        RunRecord(finished_at=1).write(run.workdir)
        score = self._scores.get(folder, 0.5)
        scores = {
            TITLE: {
                "overall": {"examples": 8, "exact_match": score, "baseline": 0.25},
                "clusters": {"reading": {"tasks": 2, "exact_match": score}},
                "intervals": {"overall": {"exact_match": {"low": score - 0.1, "high": 0.9}}},
            }
        }
        with open(os.path.join(run.workdir, "evaluation.json"), "w") as file:
            json.dump(scores, file)
        return Ended(0, "")


def planned(folder, settings):
    return [
        Planned(each, os.path.join(folder, each.folder), each.overrides, each.overrides)
        for each in settings
    ]


def seeds(n_tasks, *values):
    return [Setting(f"data.max_tasks={n_tasks}", {"data.max_tasks": n_tasks}, s) for s in values]


def test_a_failing_run_is_one_line_and_the_others_go_on(tmp_path):
    runs = planned(tmp_path, [*seeds(1, 0, 1), *seeds(2, 0)])
    lines = []
    train = Trainer(fails=["data.max_tasks=1/seed=1"])
    outcomes = run_all(tmp_path, runs, train, lines.append, StopSignals())
    assert [each.status for each in outcomes] == ["done", "failed", "done"]
    [line] = [line for line in lines if "failed" in line]
    assert line.startswith("[2/3] data.max_tasks=1/seed=1: failed: config.train.steps: wrong (")

    # The next call does what is not done, and nothing else.
    again = Trainer()
    outcomes = run_all(tmp_path, runs, again, lines.append, StopSignals())
    assert again.asked == ["data.max_tasks=1/seed=1"]
    assert [each.status for each in outcomes] == ["skipped", "done", "skipped"]


def test_a_stopped_sweep_goes_on_where_it_was(tmp_path):
    runs = planned(tmp_path, seeds(1, 0, 1, 2))
    signals = StopSignals()
    train = Trainer(stops=["data.max_tasks=1/seed=1"])
    outcomes = run_all(tmp_path, runs, train, lambda line: None, signals)
    assert [each.status for each in outcomes] == ["done", "stopped"]
    again = Trainer()
    run_all(tmp_path, runs, again, lambda line: None, StopSignals())
    assert again.asked == ["data.max_tasks=1/seed=1", "data.max_tasks=1/seed=2"]


def test_a_run_that_is_asked_for_differently_is_not_done(tmp_path):
    runs = planned(tmp_path, seeds(1, 0))
    run_all(tmp_path, runs, Trainer(), print, StopSignals())
    train = Trainer()
    run_all(tmp_path, [runs[0]._replace(asks="more steps")], train, print, StopSignals())
    assert train.asked == ["data.max_tasks=1/seed=0"]


def test_means_and_changes_have_students_intervals_over_seeds():
    rng = np.random.default_rng(0)
    scores = rng.uniform(size=(2, 3))
    runs = [
        RunScores(setting, {"heldout/exact_match": float(scores[k, seed])}, {})
        for k, n_tasks in enumerate((1, 4))
        for seed, setting in enumerate(seeds(n_tasks, 0, 1, 2))
    ]
    first, second = summarized(runs)
    for each, values in ((first.means, scores[0]), (second.means, scores[1])):
        mean = each["heldout/exact_match"]
        low, high = scipy.stats.t.interval(0.95, 2, values.mean(), scipy.stats.sem(values))
        assert (mean.mean, mean.low, mean.high) == pytest.approx((values.mean(), low, high))
    change = second.changes["heldout/exact_match"]
    test = scipy.stats.ttest_rel(scores[1], scores[0]).confidence_interval(0.95)
    assert (change.low, change.high) == pytest.approx((test.low, test.high))
    assert not first.changes


def test_equal_settings_of_other_names_are_drawn(monkeypatch):
    drawn = []
    monkeypatch.setattr(page, "line_plot", lambda _, series, **options: drawn.extend(series))
    runs = [
        RunScores(Setting(name, {"train.steps": n}, None), {"eval_loss": loss}, {})
        for name, n, loss in (("a", 1, 0.5), ("again", 1, 0.25), ("b", 2, 0.125))
    ]
    page.plot(summarized(runs), ["eval_loss"])
    [line] = drawn
    assert (line.xs, line.ys) == ([1, 1, 2], [0.5, 0.25, 0.125])


def test_one_seed_has_the_interval_over_its_examples(tmp_path):
    [run] = planned(tmp_path, seeds(1, 0))
    Trainer()(run, "", StopSignals())
    [setting] = summarized([read_scores(run.setting, run.workdir)])
    mean = setting.means["heldout/exact_match"]
    assert (mean.mean, mean.low, mean.high, mean.n) == (0.5, 0.4, 0.9, 1)
    assert setting.means["heldout/reading/exact_match"].mean == 0.5


def test_the_command_trains_a_grid_and_writes_table_plot_and_page(tmp_path, monkeypatch, capsys):
    scores = {f"data.max_tasks={n}/seed={s}": n / 10 + s / 100 for n in (1, 4) for s in (0, 1, 2)}
    train = Trainer(scores, fails=["data.max_tasks=9/seed=0"])
    monkeypatch.setattr(sweep_runs, "train_process", train)
    words = ["sweep", "--config", "configs/quickstart.py", "--workdir", str(tmp_path)]
    grid = ["--grid", "data.max_tasks=1,4", "--seeds", "0,1,2"]
    assert main([*words, *grid, "--dry-run"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6 and not train.asked
    assert main([*words, *grid]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"data.max_tasks=4 +3 +0.410 ±0.025 +0.250", printed)
    assert "+0.300 [+0.300, +0.300]" in printed
    content = json.loads((tmp_path / "sweep.json").read_text())
    assert content["settings"][1]["by_run"]["heldout/exact_match"] == [
        scores[f"data.max_tasks=4/seed={seed}"] for seed in (0, 1, 2)
    ]
    assert "data.max_tasks" in (tmp_path / "sweep.svg").read_text()
    assert "heldout exact match" in (tmp_path / "sweep.html").read_text()

    assert main([*words, "--grid", "data.max_tasks=1,9", "--seeds", "0"]) == 2
    assert "failed: data.max_tasks=9/seed=0: config.train.steps: wrong" in capsys.readouterr().out
    # Whatever is asked of it, the page has what the runs scored.
    (tmp_path / "sweep.html").unlink()
    assert main([*words, *grid, "--metric", "heldout/exact_mtch"]) == 2
    assert "no run has it; did you mean 'heldout/exact_match'?" in capsys.readouterr().err
    assert "heldout exact match" in (tmp_path / "sweep.html").read_text()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "expected --grid FIELD=VALUES, --seeds SEEDS, or --sweep FILE"),
        (["--grid", "data.max_tsks=1"], "run data.max_tsks=1: --config.data.max_tsks: no such"),
        (["--grid", "data.max_tasks=-1"], "run data.max_tasks=-1: config.data.max_tasks: expected"),
        (["--sweep", "none.yaml"], "--sweep none.yaml: no such file"),
        (["--config", "configs/smollm3.py", "--seeds", "0,1"], "stages mid, sft; expected one run"),
        (["--sweep", "x.yaml", "--grid", "a=1"], "--sweep, --grid: expected one of the two"),
        (["--seeds", "0,a"], "--seeds 0,a: expected whole numbers with commas between"),
        (["--seeds", ""], "--seeds : expected whole numbers"),
        (["--seeds", "1,0,1"], "--seeds 1,0,1: 1 is given twice"),
        (["--seeds", "1", "--grid", "seed=2"], "--seeds, --grid seed=: expected one of the two"),
        (["--seeds", "1", "--metric", "eval_los"], "no run has it; did you mean 'eval_loss'?"),
        (["--seeds", "1", "--metric", "test/x"], "--metric test/x: expected eval_loss, heldout_"),
        (
            ["--seeds", "1", "--metric", "eval/x", "--config.evaluation.examples=0"],
            "--metric eval/x: evaluation.examples is 0, so no answers are scored",
        ),
        (
            ["--seeds", "1", "--metric", "heldout_loss", "--config.data.heldout_mixture="],
            "--metric heldout_loss: data.heldout_mixture is empty",
        ),
        (["--seeds", "1", "--workdir", __file__], "test_runs.py: is a file; expected a folder"),
    ],
)
def test_a_mistake_is_found_before_any_run(tmp_path, capsys, flags, message):
    words = ["sweep", "--config", "configs/quickstart.py", "--workdir", str(tmp_path / "s")]
    assert main([*words, *flags, "--dry-run"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (
            ["preference.loss=sigmoid,ipo", "preference.label_smoothing=0,0.1"],
            "run preference.loss=ipo_preference.label_smoothing=0.1: config.preference.label_",
        ),
        (["lora.rank=0,4", "optimizer.freeze=^embed"], "config.optimizer.freeze: with lora.rank"),
        (["train.batch_size=2,-2"], "run train.batch_size=-2: config.train.batch_size: expected"),
        (["data.root=rows.jsonl,none.jsonl"], "--data: none.jsonl: no such file or folder"),
    ],
)
def test_a_mistake_is_found_before_the_rest_of_a_config_is_chosen(
    tmp_path, monkeypatch, capsys, grid, message
):
    monkeypatch.chdir(tmp_path)
    write_workdir(tmp_path / "model")
    row = {"inputs": "Say 1", "targets": "ok"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    flags = [word for item in grid for word in ("--grid", item)]
    words = ["sweep", "--model", "model", "--data", "rows.jsonl", "--workdir", "s", *flags]
    assert main([*words, "--dry-run"]) == 2
    assert message in capsys.readouterr().err


def test_a_metric_is_known_from_prepared_stores(monkeypatch):
    store = types.SimpleNamespace(manifest={"cluster": "reading"})
    mixture = types.SimpleNamespace(stores=[store], metric_fns=[["ift_jax.metrics:rouge_l"]])
    monkeypatch.setattr(known_metrics, "open_if_prepared", lambda config, which: (None, mixture))
    config = Config(evaluation=EvaluationConfig(examples=8))
    check_metrics(["eval/rouge_l", "eval/reading/rouge_l", "eval/accuracy", "seconds"], [config])
    with pytest.raises(UserError, match="--metric eval/rouge_1: no run has it; did you mean"):
        check_metrics(["eval/rouge_1"], [config])
    # One of the runs has it.
    held_out = dataclasses.replace(config.data, heldout_mixture="others")
    check_metrics(["heldout_loss"], [config, dataclasses.replace(config, data=held_out)])
    # Only the task itself knows.
    monkeypatch.setattr(mixture, "metric_fns", [[SEQIO_METRICS]])
    check_metrics(["eval/rouge_1"], [config])


def test_a_process_that_fails_says_why(tmp_path):
    setting = Setting("a", {}, None)
    run = Planned(setting, str(tmp_path / "a"), ["--config", "none.py"], "")
    ended = train_process(run, str(tmp_path / "log"), StopSignals())
    assert ended.status == 2 and ended.message.startswith("--config: no such file: none.py")
