"""The benchmarks' own arithmetic, and how costs grow, at sizes whose figures mean nothing."""

import functools
import itertools
import json
import time

import numpy as np
import pytest
import tokenizers

from benchmarks import (
    alternate,
    decode_against_torch,
    growth,
    growth_costs,
    made_data,
    step_against_torch,
)
from benchmarks.machine import CpuTime
from ift_jax.text.tokenizers.load import load_tokenizer


def test_every_point_is_measured_kept_and_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(growth, "describe", lambda: {"processor": "any"})
    monkeypatch.setattr(growth_costs, "MOST_REPEATS", 2)
    # All three steps of these sizes have the same shapes: one program is compiled for them.
    steps = []
    step_once = functools.cache(growth_costs.step)

    def step(*sizes):
        steps.append(sizes)
        return step_once(*steps[0])

    monkeypatch.setattr(growth_costs, "step", step)
    kept = tmp_path / "growth.json"
    growth.main(["--tiny", "--json", str(kept), "--plots", str(tmp_path)])
    found = json.loads(kept.read_text())
    assert found["machine"] == {"processor": "any"} and found["load_of_others"] >= 0
    # The row, an example, the vocabulary, and the tokens of a batch.
    assert steps == [(32, 8, 64, 64), (32, 32, 64, 64), (32, 8, 64, 64)]
    curves = found["curves"]
    assert set(curves) == {curve for plot in growth.PLOTS for curve in plot.curves}
    assert {curve: list(points) for curve, points in curves.items()} == {
        "step, packed rows": ["32"],
        "step, one example a row": ["32"],
        "step by vocabulary": ["64"],
        "planning": ["100", "200"],
        "planning by tasks": ["1", "2"],
        "preparing": ["1", "2"],
        "opening": ["1", "2"],
    }
    points = [point for points in curves.values() for point in points.values()]
    assert all(point["seconds"] > 0 and point["repeats"] == 2 for point in points)
    # 64 tokens a step; the seconds are rounded to a hundredth of a millisecond.
    step = curves["step by vocabulary"]["64"]
    assert step["tokens_per_second"] * step["seconds"] == pytest.approx(64, rel=0.02)
    for plot in growth.PLOTS:
        svg = (tmp_path / plot.file).read_text()
        assert svg.startswith("<svg") and 'fill="white"' in svg and plot.x_label in svg
        (tmp_path / plot.file).unlink()
    growth.main(["--plot", "--json", str(kept), "--plots", str(tmp_path)])
    assert all((tmp_path / plot.file).exists() for plot in growth.PLOTS)


def test_a_cost_is_measured_again_until_it_has_taken_enough_time(monkeypatch):
    monkeypatch.setattr(growth_costs, "ENOUGH_SECONDS", 0.03)
    calls = itertools.repeat(functools.partial(time.sleep, 0.02))
    point = growth_costs.least_seconds(calls)
    assert point["repeats"] == 2 and point["seconds"] >= 0.02


def test_the_flops_of_a_step_are_those_of_its_products():
    # Two layers of d 32: heads 2 and 1 of 16, MLP of 64; 512 pieces. Examples of 110, 84, 62.
    per_layer = 32 * (32 + 16 + 16) + 32 * 32 + 3 * 32 * 64
    lengths = np.array([110, 84, 62])
    n_tokens, n_trained = 4 * 256, 4 * (lengths - np.round(0.4 * lengths)).sum()
    products = 6 * (2 * per_layer * n_tokens + 32 * 512 * n_trained)
    pairs = 4 * (lengths * (lengths + 1) / 2).sum()
    attention = 2 * 12 * 2 * 16 * pairs
    expected = (products + attention) / 1e9
    assert step_against_torch.model_gflops("tiny") == pytest.approx(expected, abs=0.06)
    # Both optimizers of T5 take the same products.
    t5 = step_against_torch.model_gflops("t5_small")
    assert t5 == step_against_torch.model_gflops("t5_small_adafactor") > 400


def test_the_share_of_the_bandwidth_is_that_of_the_tokens_after_the_first():
    workload = decode_against_torch.Workload(batch=2, shape="tiny", n_new=11)
    # 22 tokens in 2 s, half of them for the prompt: ten reads of all weights in 1 s.
    found = {"tokens_per_second": 11.0, "prompt_seconds": 1.0}
    n_weights = 512 * 32 + 2 * (32 * (32 + 16 + 16) + 32 * 32 + 3 * 32 * 64 + 2 * 32) + 32
    n_cached = 2 * 2 * 1 * 16 * 2 * (128 + 5.5)
    read = 4 * (n_weights + n_cached) * 10 / 1e9
    share = decode_against_torch.share_of_bandwidth(workload, found, read / 0.5)
    assert share == pytest.approx(0.5, abs=0.001)


def test_sides_are_compared_by_the_medians_of_their_processes():
    def processes(*seconds):
        return [{"seconds": each, "load_of_others": 0.1} for each in seconds]

    machine = {"gflops_2048": {"torch": 250.0, "jax": 220.0}}
    sides = {"ift_jax": processes(1.0, 2.0, 9.0), "torch": processes(3.0, 5.0, 4.0)}
    results = alternate.Results(machine, sides)
    summary = alternate.summarize(results, "seconds", more_is_better=False)
    assert summary["ift_jax_is_better_by"] == {"torch": 2.0}
    assert summary["machine"] == machine and results.peak_gflops == 250.0
    assert summary["sides"]["torch"]["load_of_others"] == [0.1] * 3


def test_the_own_work_of_a_benchmark_is_not_the_load_of_others():
    before = CpuTime(wall=10.0, busy=100.0, own=5.0)
    # Both cores were busy for four seconds, one of them with the benchmark alone.
    assert before.load_of_others(CpuTime(wall=14.0, busy=108.0, own=9.0)) == 1.0
    assert before.load_of_others(CpuTime(wall=14.0, busy=103.9, own=9.0)) == 0.0


@pytest.mark.parametrize("kind", ["bpe", "sentencepiece"])
def test_both_sides_prepare_with_the_same_tokenizer(tmp_path, kind):
    data = tmp_path / "data.jsonl"
    words = made_data.made_words(np.random.default_rng(0), 400)
    text = " ".join(words)
    data.write_text(json.dumps({"messages": [{"role": "user", "content": text}]}) + "\n")
    folder = made_data.tokenizer_folder(tmp_path, data, kind, vocab_size=320)
    ours = load_tokenizer(str(folder / "tokenizer.model" if kind == "sentencepiece" else folder))
    theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = ours.encode(text)
    assert len(ids) > len(words)
    assert ids == theirs.encode(text, add_special_tokens=False).ids
