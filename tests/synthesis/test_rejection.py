"""Rejection sampling end to end with a scripted model: counts, kills, failures, rounds."""

import datetime
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ift_jax.errors import UserError
from ift_jax.io.stop_signals import never
from ift_jax.synthesis.generator import Interrupted
from ift_jax.synthesis.prompt_rows import read_prompt_rows
from ift_jax.synthesis.rejection import run_round
from ift_jax.synthesis.rejection_plan import Plan
from ift_jax.synthesis.rejection_rounds import Models, run_rounds
from ift_jax.synthesis.reward_functions import FunctionSpec
from ift_jax.synthesis.selection import sample_seed
from tests.synthesis.rejection_runs import (
    InProcess,
    Killed,
    Kills,
    Script,
    files_of,
    plan_of,
    write_rows,
)

EXACT = FunctionSpec("exact-match")
# 13 prompts of different lengths, so that their order of generation is another one.
ROWS = [{"inputs": "x" * (i * 5 % 13 + 1), "targets": str(i % 4)} for i in range(13)]


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def prompts(tmp_path):
    return write_rows(tmp_path / "prompts.jsonl", ROWS)


def test_a_round_has_the_counts_of_its_script(prompts, tmp_path):
    plan = plan_of(prompts, seed=5, threshold=1.0)
    output = tmp_path / "round"
    result = run_round(plan, str(output), 2, Script, lambda: InProcess(EXACT), log=lambda _: None)

    seeds = [[sample_seed(5, 2, i, j) for j in range(4)] for i in range(13)]
    rewards = [[float(seed % 4 == i % 4) for seed in row] for i, row in enumerate(seeds)]
    table = lines_of(output / "table.jsonl")
    assert [line["index"] for line in table] == list(range(13))
    assert [line["rewards"] for line in table] == rewards
    assert [line["row"] for line in table] == ROWS
    assert [line["best"] for line in table] == list(map(max, rewards))
    whole = [[seed % 11 != 0 for seed in row] for row in seeds]
    passed = [
        i for i in range(13) if any(r and w for r, w in zip(rewards[i], whole[i], strict=True))
    ]
    selected = lines_of(output / "selected.jsonl")
    assert selected == [{"inputs": ROWS[i]["inputs"], "targets": str(i % 4)} for i in passed]
    control = lines_of(output / "control.jsonl")
    assert [row["inputs"] for row in control] == [row["inputs"] for row in selected]

    summary = result.summary
    assert summary == json.loads((output / "summary.json").read_text())
    assert summary["completions"] == summary["completions_with_reward"] == 52
    assert summary["completions_passed"] == sum(map(sum, rewards))
    assert summary["prompts_with_a_pass"] == sum(map(any, rewards))
    assert summary["completions_unfinished"] == 52 - sum(map(sum, whole)) > 0
    assert summary["mean_of_best_of_4"] == pytest.approx(sum(map(max, rewards)) / 13)
    assert summary["selected"] == len(passed) and summary["selected_mean_reward"] == 1.0
    assert summary["failed_prompts"] == 0


def test_a_row_of_parquet_is_written_in_json_types(tmp_path):
    row = {
        "q": "x",
        "targets": "1",
        "image": {"bytes": b"\xff"},
        "days": [datetime.date(2020, 1, 2)],
    }
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "prompts.parquet")
    prompts = read_prompt_rows(str(tmp_path / "prompts.parquet"), "q")
    plan = Plan(prompts, samples=2, max_tokens=4)
    output = tmp_path / "round"
    run_round(plan, str(output), 1, Script, lambda: InProcess(EXACT), log=lambda _: None)
    [line] = lines_of(output / "table.jsonl")
    assert line["row"]["days"] == ["2020-01-02"] and line["row"]["image"] == {"bytes": "b'\\xff'"}


def test_top_k_overall_takes_several_completions_of_a_prompt(prompts, tmp_path):
    plan = plan_of(prompts, top=6, threshold=1.0, keeps_unfinished=True)
    output = tmp_path / "round"
    run_round(plan, str(output), 1, Script, lambda: InProcess(EXACT), log=lambda _: None)
    marks = lines_of(output / "choices.jsonl")
    by_set = {name: [m for m in marks if m["set"] == name] for name in ("selected", "control")}
    assert len(by_set["selected"]) == len(by_set["control"]) == 6
    places = [[(m["prompt"], m["sample"]) for m in of_set] for of_set in by_set.values()]
    right = [
        (line["index"], j)
        for line in lines_of(output / "table.jsonl")
        for j, reward in enumerate(line["rewards"])
        if reward == 1
    ]
    assert places[0] == right[:6]
    assert [i for i, _ in places[0]] == [i for i, _ in places[1]]


def test_a_run_that_is_killed_at_any_event_ends_with_the_same_bytes(tmp_path, monkeypatch):
    plan = plan_of(write_rows(tmp_path / "p.jsonl", ROWS[:5]), threshold=1.0)
    kills = Kills(monkeypatch)
    asked = Script(kill=kills.event)

    def run(folder):
        run_round(
            plan,
            str(folder),
            1,
            lambda: asked,
            lambda: InProcess(EXACT, kills.event),
            log=lambda _: None,
        )

    run(tmp_path / "whole")
    expected, n_events = files_of(tmp_path / "whole"), kills.n_events
    assert n_events == 2 * 3 * 3, "two stages of three groups, three events each"
    for event in range(n_events):
        kills.at, kills.n_events = event, 0
        folder = tmp_path / f"killed-{event}"
        with pytest.raises(Killed):
            run(folder)
        kills.at = -1
        asked.seeds.clear()
        run(folder)
        assert files_of(folder) == expected
        assert len(asked.seeds) == len(set(asked.seeds)), "no sample is drawn twice"


def test_a_signal_ends_it_between_two_groups_and_it_continues(prompts, tmp_path):
    plan = plan_of(prompts)
    calls = iter([False, False, True])
    args = (plan, str(tmp_path / "round"), 1, Script, lambda: InProcess(EXACT))
    assert run_round(*args, stopped=lambda: next(calls), log=lambda _: None) is None
    assert len(lines_of(tmp_path / "round" / "completions.jsonl")) == 4
    assert run_round(*args, log=lambda _: None) is not None


def test_a_signal_within_a_group_ends_it_and_it_continues(prompts, tmp_path):
    plan = plan_of(prompts)
    calls = iter([None, None, Interrupted])

    def interrupt():
        if error := next(calls, None):
            raise error

    def completer():
        return Script(kill=interrupt)

    args = (plan, str(tmp_path / "round"), 1, completer, lambda: InProcess(EXACT))
    assert run_round(*args, log=lambda _: None) is None
    assert len(lines_of(tmp_path / "round" / "completions.jsonl")) == 4
    assert run_round(*args, log=lambda _: None) is not None
    whole = (plan, str(tmp_path / "whole"), 1, Script, lambda: InProcess(EXACT))
    assert run_round(*whole, log=lambda _: None) is not None
    assert files_of(tmp_path / "round") == files_of(tmp_path / "whole")


def test_other_settings_are_refused_by_name(prompts, tmp_path):
    def run(completer, reward, **fields):
        plan = plan_of(prompts, **fields)
        folder = str(tmp_path / "round")
        run_round(plan, folder, 1, lambda: completer, lambda: InProcess(reward), log=lambda _: None)

    run(Script(), EXACT)
    with pytest.raises(UserError, match="completions.jsonl: was begun with weights 'start', now"):
        run(Script("another"), EXACT)
    with pytest.raises(UserError, match="with temperature 1.0, now it is 0.5; remove it or name"):
        run(Script(), EXACT, temperature=0.5)
    with pytest.raises(UserError, match="table.jsonl: was begun with reward 'exact-match'"):
        run(Script(), FunctionSpec("regex:1"))
    run(Script(), EXACT, threshold=1.0, top=3)  # What is selected may change.
    assert len(lines_of(tmp_path / "round" / "selected.jsonl")) == 3


def test_a_prompt_that_does_not_fit_is_counted_and_the_others_go_on(tmp_path, capsys):
    prompts = write_rows(tmp_path / "p.jsonl", [{"inputs": "long", "targets": "1"}, ROWS[0]])
    plan = plan_of(prompts)
    result = run_round(
        plan, str(tmp_path / "out"), 1, Script, lambda: InProcess(EXACT), log=lambda _: None
    )
    assert result.summary["failed_prompts_by_reason"] == {"too long": 1}
    assert result.summary["selected"] == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 4 and "p.jsonl:1, sample 3: the prompt leaves no room" in errors[3]


def test_rounds_sample_from_the_last_model_and_train_the_first(prompts, tmp_path):
    plan = plan_of(prompts, threshold=1.0)
    opened, trained = [], []
    stops = iter([False])

    def open_completer(model):
        opened.append(model)
        return Script(model)

    def train(data, workdir):
        trained.append((data, workdir))
        return next(stops, True)

    output = str(tmp_path)
    models = Models(open_completer, lambda: InProcess(EXACT), train, trains_control=True)

    def run():
        opened.clear()
        trained.clear()
        return run_rounds(plan, output, 2, "start", models, stopped=never, log=lambda _: None)

    assert not run().is_complete  # Training was stopped.
    rounds = run()
    assert rounds.is_complete and len(rounds.results) == 2
    first = f"{output}/round-1"
    assert opened == ["start", f"{first}/model"]
    assert [data[len(output) :] for data, _ in trained] == [
        "/round-1/selected.jsonl",
        "/round-1/control.jsonl",
        "/round-2/selected.jsonl",
        "/round-2/control.jsonl",
    ]
    assert [workdir for _, workdir in trained][:2] == [f"{first}/model", f"{first}/control_model"]
    tables = [(tmp_path / f"round-{i}" / "completions.jsonl").read_text() for i in (1, 2)]
    assert tables[0] != tables[1], "another round draws other samples"


def test_a_round_that_selects_nothing_is_one_error(prompts, tmp_path):
    plan = plan_of(prompts, threshold=2.0)
    models = Models(lambda model: Script(), lambda: InProcess(EXACT))
    with pytest.raises(
        UserError, match="round 1 selected nothing, of 52 completions with a reward"
    ):
        run_rounds(plan, str(tmp_path), 1, "start", models, stopped=never, log=lambda _: None)
