"""A run that is killed or stopped anywhere leaves the files of one without interruption."""

import functools
import gzip
import json
import random

import jax
import pytest

from ift_jax.checkpoint.manager import Checkpoints
from ift_jax.training import goodput, loop
from tests.training import in_process


@pytest.fixture
def process(monkeypatch):
    return in_process.InProcess(monkeypatch)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The workdir of a run without interruption, and its events."""
    workdir = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        process = in_process.InProcess(patch)
        assert process.train(workdir) == 0
        return workdir, process.events


def test_a_run_writes_each_line_once(whole):
    workdir, _ = whole
    kinds = [
        (record["step"], next(name for name in record if name != "step"))
        for record in in_process.records(workdir)
    ]
    assert kinds == [
        (0, "eval_loss"),
        (0, "preview_stop_rate"),
        (3, "loss"),
        (4, "eval_loss"),
        (5, "eval_loss"),
        (5, "preview_stop_rate"),
        (6, "loss"),
        (8, "eval_loss"),
        (9, "loss"),
        (10, "loss"),
        (10, "eval_loss"),
        (10, "preview_stop_rate"),
    ]
    assert [json.loads(line)["step"] for line in in_process.samples(workdir)] == [0, 5, 10]


def test_killed_again_and_again(process, whole, tmp_path):
    expected, events = whole
    chance = random.Random(1)
    n_kills = 0
    while process.kill(tmp_path, chance.randint(3, len(events) // 2), chance.random() < 0.3):
        n_kills += 1
        assert n_kills < 100
    assert n_kills >= 3
    in_process.assert_same_run(tmp_path, expected)


class Clock:
    """Goes on by a hundredth of a second whenever somebody looks at it."""

    def __init__(self):
        self.now = 1e9

    def __call__(self):
        self.now += 0.01
        return self.now


def test_every_second_of_a_killed_run_has_a_kind(process, whole, tmp_path, capsys, monkeypatch):
    """The last save of the killed process is lost; so is the time until the next one trains."""
    _, events = whole
    clock = Clock()
    monkeypatch.setattr(loop, "Goodput", functools.partial(goodput.Goodput, clock, clock))
    start = clock()
    at_event = len(events) - events[::-1].index("save ends")
    assert process.kill(tmp_path, at_event, lose_save=True)
    killed = clock()
    clock.now += 5
    assert process.train(tmp_path) == 0
    took = clock() - start
    logged = [
        record["time"]["goodput"]
        for record in map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
        if "loss" in record
    ]
    assert len(logged) == 4 and all(set(shares) == set(goodput.KINDS) for shares in logged)
    assert all(sum(shares.values()) == pytest.approx(1, abs=1e-9) for shares in logged)
    assert all(min(shares.values()) >= 0 for shares in logged)
    assert [shares["restarting"] > 0 for shares in logged] == [False, False, True, True]
    lines = [json.loads(line) for line in (tmp_path / goodput.FILE).read_text().splitlines()]
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)
    last = lines[-1]["seconds"]
    resumed_from = [line for line in lines if line["unix"] < killed][-1]
    trains_again = next(line for line in lines if line["unix"] > killed)
    assert resumed_from["step"] == trains_again["step"] == 8
    made_up_for = trains_again["seconds"]["evaluating"] - resumed_from["seconds"]["evaluating"]
    lost = trains_again["unix"] - resumed_from["unix"] - made_up_for
    assert last["restarting"] == pytest.approx(lost, abs=0.2) and lost > 5
    assert took - 3.0 < sum(last.values()) < took
    assert "\ntime 0:00:0" in capsys.readouterr().out


def traced_steps(workdir):
    """The steps of each trace of a workdir, as TensorBoard's profiler reads them."""
    files = workdir.glob("tensorboard/plugins/profile/*/*.xplane.pb")
    return {
        file.parent.name: sorted(
            dict(event.stats)["step_num"]
            for plane in jax.profiler.ProfileData.from_file(str(file)).planes
            for line in plane.lines
            for event in line.events
            if event.name == "train"
        )
        for file in files
    }


def test_a_trace_holds_its_steps_also_after_a_stop(process, whole, tmp_path, capsys):
    _, events = whole
    flags = ["--profile", "3:6"]
    # The log line of step 3 is written after step 4 was started.
    writes = [at for at, name in enumerate(events, 1) if name == "write starts"]
    process.stop(tmp_path, writes[2], flags)
    assert traced_steps(tmp_path) == {"steps_3_to_6": [3, 4]}
    assert f"profile: steps 3 to 4 are in {tmp_path}/tensorboard" in capsys.readouterr().out
    (viewer,) = tmp_path.glob("tensorboard/plugins/profile/*/*.trace.json.gz")
    with gzip.open(viewer) as file:
        names = {event.get("name") for event in json.load(file)["traceEvents"]}
    assert "train" in names
    assert not [name for name in names if str(name).startswith("$")]  # No calls of Python.

    assert process.train(tmp_path, flags=flags) == 0
    assert traced_steps(tmp_path) == {"steps_3_to_6": [3, 4], "steps_5_to_6": [5, 6]}
    output = capsys.readouterr().out
    assert "profile: steps 3 to 4 are done already; the others are traced" in output

    assert process.train(tmp_path, flags=flags) == 0  # As a job that is restarted.
    output = capsys.readouterr().out
    assert "profile: steps 3 to 6 are done already; nothing is traced" in output
    assert "nothing to do" in output
    assert len(traced_steps(tmp_path)) == 2


@pytest.mark.slow
def test_killed_once_at_events_of_all_kinds(process, whole, tmp_path):
    expected, events = whole
    places = {}  # Those of each kind of event, from 1.
    for at_event, name in enumerate(events, 1):
        places.setdefault(name, []).append(at_event)
    assert len(places) == 2 * len(in_process.CALLS)
    for number, name in enumerate(sorted(places)):
        # Early ones of some kinds, late ones of others; each second one loses its save.
        at_event = places[name][len(places[name]) * (number % 3) // 3]
        workdir = tmp_path / str(at_event)
        assert process.kill(workdir, at_event, lose_save=number % 2 == 0)
        assert process.train(workdir) == 0
        in_process.assert_same_run(workdir, expected)


def test_a_stop_is_obeyed_between_batches_everywhere(process, whole, tmp_path):
    """After SIGTERM at most the batch at hand is finished; then the run saves and returns."""
    expected, events = whole
    for event in ["_sums ends", *dict.fromkeys(e for e in events if e.endswith("starts"))]:
        places = [at for at, name in enumerate(events, 1) if name == event]
        at_event = places[len(places) // 2]
        workdir = tmp_path / str(at_event)
        after = process.stop(workdir, at_event)
        assert not {"_sums starts", "_generate_blocks starts"} & set(after), (event, after)
        assert process.train(workdir) == 0
        in_process.assert_same_run(workdir, expected)


def test_a_due_checkpoint_comes_before_the_held_out_pass_and_the_samples(whole):
    _, events = whole
    names = [name.removesuffix(" starts") for name in events if name.endswith("starts")]
    last_save = len(names) - 1 - names[::-1].index("save")
    assert names[last_save - 1] == "write"  # The log line of the step.
    assert {"_sums", "rate", "_generate_blocks", "append_json_lines"} <= set(names[last_save:])


def test_the_best_checkpoint_is_kept_although_it_is_ranked_after_it_is_saved(whole):
    workdir, _ = whole
    losses = {
        record["step"]: record["eval_loss"]
        for record in in_process.records(workdir)
        if "eval_loss" in record and record["step"] not in (0, 5)
    }
    assert set(losses) == {4, 8, 10}
    best = min(losses, key=lambda step: losses[step])
    kept = Checkpoints(str(workdir), read_only=True).steps()
    assert set(kept) == {8, 10, best}


def test_a_stop_in_the_final_evaluation_keeps_the_answers_so_far(monkeypatch, tmp_path, capsys):
    scored = ["evaluation.examples=5", "train.preview_prompts=0", "train.eval_every=0"]
    process = in_process.InProcess(monkeypatch, scored)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert process.train(whole) == 0
    batches = [at for at, name in enumerate(process.events, 1) if name == "_generate_blocks starts"]
    assert len(batches) == 3
    after = process.stop(broken, batches[1])
    assert "_generate_blocks starts" not in after
    # The batch of the prompt that is left over comes first.
    assert "3 answers so far are in answers.jsonl" in capsys.readouterr().out

    def answers(workdir):
        lines = map(json.loads, (workdir / "answers.jsonl").read_text().splitlines())
        return [{name: line[name] for name in line if name != "metrics"} for line in lines]

    assert len(answers(broken)) == 3
    assert all(answer in answers(whole) for answer in answers(broken))
    assert json.loads((broken / "evaluation.json").read_text()) == {}
    assert process.train(broken) == 0
    # The scores reach metrics.jsonl, TensorBoard and trackers once.
    assert in_process.records(broken) == in_process.records(whole)
    last = in_process.records(whole)[-1]
    assert last["evaluation"]["eval"]["overall"].keys() == {"exact_match", "rouge_l", "stopped"}
    # Only the batch that was left is answered.
    assert process.events.count("_generate_blocks starts") == 1
    assert not list(broken.glob("*.unordered.jsonl"))
    for name in ("answers.jsonl", "evaluation.json"):
        assert (broken / name).read_text() == (whole / name).read_text()


def test_no_run_ends_without_a_checkpoint(monkeypatch, tmp_path, capsys):
    """The smallest part of an epoch is a step; no steps at all are refused."""
    process = in_process.InProcess(monkeypatch, ["train.steps=0"])
    assert process.train(tmp_path) == 2
    assert "config.train: steps and epochs are both 0; set one" in capsys.readouterr().err
    assert process.train(tmp_path, ["train.epochs=1e-9"]) == 0
    assert Checkpoints(str(tmp_path), read_only=True).steps() == [1]
