"""`ift compare`: its intervals and tests against scipy, closed forms and simulation."""

import json
import math

import numpy as np
import pytest
import scipy.stats

from ift_jax.commands.main import main
from ift_jax.evaluation.paired_tests import mcnemar, mean_interval


def answer(task, index, right, **metrics):
    given = "yes" if right else "no"
    fields = {"task": task, "index": index, "prompt": "?", "references": ["yes"], "answer": given}
    return {**fields, "metrics": metrics} if metrics else fields


def write_run(folder, answers):
    folder.mkdir(parents=True)
    lines = [json.dumps(fields) + "\n" for fields in answers]
    (folder / "answers.jsonl").write_text("".join(lines))
    return str(folder)


@pytest.mark.parametrize("discrete", [True, False])
def test_the_interval_is_that_of_scipys_bootstrap(discrete):
    rng = np.random.default_rng(3)
    scores = rng.normal(0.1, 1.0, 60)
    if discrete:
        scores = np.sign(scores)
    found = mean_interval({"task": scores})
    expected = scipy.stats.bootstrap(
        (scores,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(0)
    ).confidence_interval
    # Means of 60 signs are 1/30 apart, so quantiles of two samples may differ by one step.
    np.testing.assert_allclose(found, expected, atol=1 / 30 + 1e-9 if discrete else 0.02)


def test_the_interval_of_several_tasks_has_the_standard_error_of_their_mean():
    rng = np.random.default_rng(5)
    tasks = {f"task{n}": rng.normal(0, 1 + n, 400) for n in range(3)}
    variance = sum(scores.var() / len(scores) for scores in tasks.values()) / 9
    mean = np.mean([scores.mean() for scores in tasks.values()])
    half = 1.96 * math.sqrt(variance)
    np.testing.assert_allclose(mean_interval(tasks), (mean - half, mean + half), atol=0.01)


def test_95_of_100_intervals_hold_the_true_difference():
    rng = np.random.default_rng(7)
    n_trials, n_examples, true_difference = 300, 80, 0.1
    held = 0
    for trial in range(n_trials):
        differences = rng.choice([-1, 0, 1], n_examples, p=[0.2, 0.5, 0.3])
        lower, upper = mean_interval({"task": differences}, seed=trial)
        held += lower <= true_difference <= upper
    # Three standard deviations of a binomial count around 95%, and the bootstrap's known
    # undercoverage of about a point at this size.
    assert 0.90 <= held / n_trials <= 0.99


def test_mcnemar_is_the_exact_binomial_probability():
    first = np.array([True] * 5 + [False] * 15 + [True] * 30)
    second = np.array([False] * 5 + [True] * 15 + [True] * 30)
    closed_form = 2 * sum(math.comb(20, k) for k in range(6)) / 2**20
    found = mcnemar(first, second)
    assert found[:2] == (5, 15)
    assert found.p_value == pytest.approx(closed_form)
    assert mcnemar(first, first).p_value == 1.0


def test_two_runs_side_by_side(tmp_path, capsys):
    before = [answer("a", k, right=k < 10) for k in range(40)]
    before += [answer("b", k, right=k < 20) for k in range(40)]
    after = [answer("a", k, right=k < 30) for k in range(40)]
    after += [answer("b", k, right=k < 20) for k in range(39)] + [answer("c", 0, right=True)]
    runs = write_run(tmp_path / "before", before), write_run(tmp_path / "after", after)
    output = tmp_path / "out.json"
    assert main(["compare", *runs, "--output", str(output)]) == 0
    shown = capsys.readouterr().out
    [found] = json.loads(output.read_text())["comparisons"]
    assert found["overall"]["examples"] == 79
    assert found["left_out"] == 2  # Example 39 of b, and the one of c.
    assert found["overall"]["first"] == pytest.approx((10 / 40 + 20 / 39) / 2)
    assert found["overall"]["second"] == pytest.approx((30 / 40 + 20 / 39) / 2)
    assert found["overall"]["test"] == {"only_first": 0, "only_second": 20, "p_value": 2 / 2**20}
    assert found["tasks"]["b"]["interval"] == [0, 0]
    assert found["tasks"]["b"]["verdict"] == "no difference shown"
    assert "exact_match: 2 tasks, 79 examples" in shown
    assert "higher" in shown
    assert "p = 1.9e-06" in shown
    assert all(len(line) <= 80 + len(str(tmp_path)) for line in shown.splitlines())


def test_noise_is_not_called_progress(tmp_path, capsys):
    before = [answer("a", k, right=k % 2 == 0) for k in range(50)]
    after = [answer("a", k, right=k % 2 == 0 or k == 1) for k in range(50)]
    runs = write_run(tmp_path / "before", before), write_run(tmp_path / "after", after)
    assert main(["compare", *runs]) == 0
    assert "no difference shown" in capsys.readouterr().out


def test_seeds_are_averaged_example_by_example(tmp_path, capsys):
    seeds = [
        write_run(tmp_path / f"seed{s}", [answer("a", k, right=k % 4 != s) for k in range(40)])
        for s in range(2)
    ]
    base = write_run(tmp_path / "base", [answer("a", k, right=k % 4 == 3) for k in range(40)])
    output = tmp_path / "out.json"
    assert main(["compare", base, ",".join(seeds), "--output", str(output)]) == 0
    [found] = json.loads(output.read_text())["comparisons"]
    assert found["seed_means"] == [[0.25], [0.75, 0.75]]
    assert found["overall"]["second"] == 0.75
    assert found["overall"]["test"] is None
    assert "2 seeds, standard deviation 0.000" in capsys.readouterr().out


def test_other_metrics_of_the_examples_are_compared(tmp_path, capsys):
    before = [answer("a", k, right=False, rouge_l=0.2) for k in range(20)]
    after = [answer("a", k, right=False, rouge_l=0.5) for k in range(20)]
    runs = write_run(tmp_path / "before", before), write_run(tmp_path / "after", after)
    assert main(["compare", *runs, "--metric", "rouge_l"]) == 0
    assert "+0.300  95% [+0.300, +0.300]: higher" in capsys.readouterr().out
    assert main(["compare", *runs, "--metric", "rouge"]) == 2
    assert "--metric rouge: not in every run; did you mean 'rouge_l'?" in capsys.readouterr().err


def test_examples_with_other_references_are_no_pairs(tmp_path, capsys):
    first = [answer("a", k, right=True) for k in range(6)]
    other = [{**answer("a", k, right=False), "references": ["maybe"]} for k in range(5)]
    runs = [write_run(tmp_path / "first", first), write_run(tmp_path / "other", other)]
    assert main(["compare", *runs]) == 2
    assert "have answered no example in common" in capsys.readouterr().err
    shared = write_run(tmp_path / "shared", [*other, answer("a", 5, right=True)])
    assert main(["compare", runs[0], shared]) == 0
    assert "no difference shown" in capsys.readouterr().out


def test_a_score_that_is_no_number_is_named(tmp_path, capsys):
    runs = [
        write_run(tmp_path / str(f1), [answer("a", 0, right=True, f1=f1)]) for f1 in (1.0, math.nan)
    ]
    assert main(["compare", *runs]) == 2
    assert "answers.jsonl:1: metric f1: nan; expected a finite number" in capsys.readouterr().err


def test_what_cannot_be_compared_is_named(tmp_path, capsys):
    run = write_run(tmp_path / "run", [answer("a", 0, right=True)])
    other = write_run(tmp_path / "other", [answer("b", 0, right=True)])
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"task": "a"}\n')
    (tmp_path / "empty").mkdir()
    for runs, message in [
        ([run], "expected two runs or more"),
        ([run, other], "have answered no example in common"),
        ([run, str(bad)], "bad.jsonl:1: is not an answer of an evaluation"),
        ([run, str(tmp_path / "empty")], "answers.jsonl: no such file; expected a run"),
        ([run, str(tmp_path / "none")], "none: no such file; expected a run"),
    ]:
        assert main(["compare", *runs]) == 2
        assert message in capsys.readouterr().err
