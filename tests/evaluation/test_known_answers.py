"""A fake model with known answers: exact numbers by task, cluster and overall, with intervals."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from ift_jax.config.schema import Config, DataConfig, DecoderConfig, EvaluationConfig, FormatConfig
from ift_jax.data.mixture import Mixture
from ift_jax.evaluation.evaluate import evaluate, plan
from ift_jax.evaluation.intervals import Interval, interval_of_mean, interval_of_scores
from ift_jax.evaluation.metric_values import json_text
from ift_jax.evaluation.questions import first, seeded
from ift_jax.evaluation.score_table import gain_lines, table
from ift_jax.evaluation.text_generator import TextGenerator
from ift_jax.metrics import reference_metric
from ift_jax.models import build_model
from ift_jax.text.examples import ExampleFormatter
from ift_jax.text.rows.parse_record import parse_record
from tests.data.made_stores import make_store
from tests.text.small_tokenizers import sentencepiece_tokenizer

RIGHT = {"one": 8, "two": 3, "three": 0}  # Right answers to the 10, 4 and 2 examples of each task.
SIZES = {"one": 10, "two": 4, "three": 2}


@reference_metric
def longest(targets, predictions):
    """No mean over examples."""
    return {"longest": float(max(map(len, predictions)))}


@reference_metric
def rating(targets, predictions):
    """A mean of scores from 0 to 3."""
    return {"rating": sum(len(text) % 4 for text in predictions) / len(predictions)}


METRICS = [f"{__name__}:longest", f"{__name__}:rating", "ift_jax.metrics:exact_match"]


def opened(tmp_path, monkeypatch):
    """A text generator whose answers are known, its mixture, and the answers."""
    config = Config(
        model=DecoderConfig(
            vocab_size=480, d_model=8, n_layers=1, n_heads=1, n_kv_heads=1, head_dim=8, d_ff=8
        ),
        format=FormatConfig("plain"),
        data=DataConfig(max_length=64),
        evaluation=EvaluationConfig(examples=100, batch_size=4),
    )
    tokenizer = sentencepiece_tokenizer()
    text_generator = TextGenerator(config, tokenizer, build_model(config.model))
    formatter = ExampleFormatter.from_config(config, tokenizer)
    stores, answers = [], {}
    for task, size in SIZES.items():
        records = [{"inputs": f"{task} {i}", "targets": f"word {i}"} for i in range(size)]
        made = [formatter.encode(parse_record(r, "r"))[0] for r in records]
        stores.append(make_store(tmp_path, task, [made]))
        stores[-1].manifest["cluster"] = "small" if size < 10 else "large"
        for i, example in enumerate(made):
            prompt = tuple(example.tokens[: example.prompt_length].tolist())
            text = f"word {i}" if i < RIGHT[task] else "no" + "o" * i
            answers[prompt] = [*tokenizer.encode(text), formatter.stop_ids[0]]

    def generate(self, params, prompts, *_):
        return {i: answers[tuple(prompt)] for i, prompt in enumerate(prompts)}

    monkeypatch.setattr(TextGenerator, "generate", generate)
    mixture = Mixture(list(SIZES), np.ones(3), stores, [METRICS] * 3)
    return text_generator, mixture


def test_the_numbers_are_exact(tmp_path, monkeypatch):
    text_generator, mixture = opened(tmp_path, monkeypatch)
    result = evaluate(text_generator, None, plan(text_generator, mixture))
    tasks = result["tasks"]
    shares = {task: RIGHT[task] / SIZES[task] for task in SIZES}
    assert {task: tasks[task]["exact_match"] for task in SIZES} == shares
    assert {task: tasks[task]["examples"] for task in SIZES} == SIZES
    assert result["overall"]["exact_match"] == pytest.approx((0.8 + 0.75 + 0) / 3)
    assert result["overall"]["examples"] == 16
    assert result["clusters"]["large"]["exact_match"] == 0.8
    assert result["clusters"]["small"]["exact_match"] == pytest.approx(0.375)
    assert (
        result["clusters"]["small"]["tasks"] == 2 and result["clusters"]["small"]["examples"] == 6
    )

    # Each example once, with its own scores by the metrics that are means.
    answers = result["answers"]
    assert len({(a["task"], a["index"]) for a in answers}) == len(answers) == 16
    for answer in answers:
        right = float(answer["index"] < RIGHT[answer["task"]])
        rated = float(len(answer["answer"]) % 4)
        assert answer["metrics"] == {"exact_match": right, "stopped": 1.0, "rating": rated}
    intervals = result["intervals"]
    assert set(intervals["one"]) == {"exact_match", "stopped", "rating"}
    by_scipy = stats.binomtest(8, 10).proportion_ci(0.95, "wilson")
    assert intervals["one"]["exact_match"]["low"] == pytest.approx(by_scipy.low, abs=1e-6)
    assert intervals["one"]["exact_match"]["high"] == pytest.approx(by_scipy.high, abs=1e-6)
    errors = [intervals[task]["exact_match"]["standard_error"] for task in SIZES]
    assert errors == pytest.approx(
        [stats.sem([1] * RIGHT[t] + [0] * (SIZES[t] - RIGHT[t])) for t in SIZES]
    )
    overall = intervals["overall"]["exact_match"]["standard_error"]
    assert overall == pytest.approx(math.sqrt(sum(error**2 for error in errors)) / 3)
    assert json.loads(json_text(result))["intervals"] == intervals

    lines = table("title", result, 120)
    half = (by_scipy.high - by_scipy.low) / 2
    assert any(f"0.800 ±{half:.3f}" in line and "one" in line for line in lines)
    assert any(line.startswith("  small (2 tasks)") and "0.375" in line for line in lines)


def test_a_stop_before_the_last_metric_gives_no_scores(tmp_path, monkeypatch):
    text_generator, mixture = opened(tmp_path, monkeypatch)
    asked = []
    planned = plan(text_generator, mixture)
    result = evaluate(text_generator, None, planned, lambda: asked.append(1) or len(asked) == 9)
    # Before each of three metrics of three tasks.
    assert len(asked) == 9
    assert not result["complete"] and "tasks" not in result and len(result["answers"]) == 16


def test_an_interval_of_no_right_answer_begins_at_0_and_of_right_ones_alone_ends_at_1():
    for n in range(2, 200):
        none, alone = (interval_of_scores([score] * n) for score in (0.0, 1.0))
        assert none.low == 0 < none.high and alone.low < 1 == alone.high
        assert (
            interval_of_mean([0.0], [none]).low == 0 and interval_of_mean([1.0], [alone]).high == 1
        )


def test_the_intervals_are_those_of_scipy():
    for right, n in ((0, 20), (20, 20), (81, 263), (1, 29)):
        got = interval_of_scores([1.0] * right + [0.0] * (n - right))
        want = stats.binomtest(right, n).proportion_ci(0.95, "wilson")
        assert (got.low, got.high) == pytest.approx((want.low, want.high), abs=1e-6)
    scores = [0.5, 0.25, 1.0, 0.0, 0.125]
    got = interval_of_scores(scores)
    assert got.standard_error == pytest.approx(stats.sem(scores))
    assert got[1:] == pytest.approx(stats.norm.interval(0.95, np.mean(scores), stats.sem(scores)))
    # The interval of a mean of normal variables is known; that of a single one is its own.
    normal = [Interval(e, v - 1.96 * e, v + 1.96 * e) for v, e in ((0.2, 0.3), (0.4, 0.4))]
    want = (0.25, 0.3 - 1.96 * 0.25, 0.3 + 1.96 * 0.25)
    assert interval_of_mean([0.2, 0.4], normal) == pytest.approx(want)
    assert interval_of_mean([0.5], [got]) == pytest.approx((got.standard_error, got.low, got.high))


def test_the_seeded_subset_depends_on_seed_task_and_index_alone(tmp_path, monkeypatch):
    _, mixture = opened(tmp_path, monkeypatch)
    store = mixture.stores[0]
    chosen = seeded(4, seed=0)("one", store)
    assert chosen == [2, 3, 5, 8]  # The same on every host and in every version.
    assert seeded(100, 0)("one", store) == list(range(10))
    assert set(chosen) < set(seeded(6, 0)("one", store))
    others = [seeded(4, seed=1)("one", store), seeded(4, seed=0)("other", store)]
    assert chosen not in others and others[0] != others[1]
    assert first(3)("one", store) == [0, 1, 2]

    class Part:
        """A store of fewer records of the same source."""

        indices = store.indices[[*chosen, 9]]

    assert seeded(4, 0)("one", Part) == [0, 1, 2, 3]


def test_the_gain_over_what_needs_no_model_has_the_interval_of_the_score():
    tasks = {
        name: {"exact_match": score, "baseline": 0.25, "chance": 1 / 3}
        for name, score in (("a", 0.5), ("b", 1.0))
    }
    result = {
        "tasks": tasks,
        "overall": {"exact_match": 0.75, "baseline": 0.25, "chance": 1 / 3},
        "intervals": {"overall": {"exact_match": {"low": 0.65, "high": 0.81}}},
    }
    assert list(gain_lines(result)) == [
        "  gain over the commonest answer (0.250): +0.500 ±0.080",
        "  gain over chance (0.333): +0.417 ±0.080",
    ]
    del tasks["b"]["chance"]  # It would be the chance of other tasks.
    assert len(list(gain_lines(result))) == 1
