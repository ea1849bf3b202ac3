"""The train step around the loss: skipped steps, sums of a log interval, clipping, learning."""

import dataclasses

import jax
import numpy as np
import pytest

from ift_jax.config.schema import Config, OptimizerConfig, TrainConfig
from ift_jax.models.model import build_model
from ift_jax.training.interval_metrics import interval_metrics
from ift_jax.training.optimizer import make_learning_rate, make_optimizer
from ift_jax.training.state import init_state
from ift_jax.training.step import make_train_step
from tests.small_models import ARCHITECTURES
from tests.training.examples import BATCHES, make_examples


@pytest.fixture(scope="module")
def run():
    config = Config(
        model=ARCHITECTURES["decoder"],
        optimizer=OptimizerConfig(learning_rate=1e-2, schedule="constant", clip_norm=0.5),
        train=TrainConfig(steps=100, log_every=3),
    )
    model = build_model(config.model)
    optimizer = make_optimizer(config.optimizer, model.logical_axes)
    learning_rate = make_learning_rate(config.optimizer, 100)
    step = jax.jit(make_train_step(model, optimizer, learning_rate, config, n_tasks=3))
    state = jax.jit(lambda: init_state(model, optimizer, 0, 3))()
    rows = [[example] for example in make_examples([9, 7, 5, 8], [1, 1, 1, 1])]
    return config, step, state, BATCHES["decoder"](rows, 10)


def test_it_learns_and_clips(run):
    _, step, state, batch = run
    losses = []
    for _ in range(30):
        state, metrics = step(state, batch)
        losses.append(float(metrics["nll"] / metrics["weight"]))
    assert losses[-1] < 0.5 * losses[0]
    assert metrics["grad_norm"] > 0


def test_a_step_that_is_not_finite_changes_only_the_counters(run):
    _, step, state, batch = run
    state, _ = step(state, batch)
    bad = {**batch, "loss_weights": np.where(batch["loss_weights"] > 0, np.inf, 0.0)}
    bad["loss_weights"] = bad["loss_weights"].astype(np.float32)
    after, metrics = step(state, bad)
    for part in ("params", "opt_state"):
        jax.tree.map(np.testing.assert_array_equal, after[part], state[part])
    assert int(after["step"]) == int(state["step"]) + 1
    assert int(metrics["skipped"]) == 1 and int(metrics["bad_streak"]) == 1
    after, metrics = step(after, bad)
    assert int(metrics["skipped"]) == 2 and int(metrics["bad_streak"]) == 2
    after, metrics = step(after, batch)
    assert int(metrics["skipped"]) == 2 and int(metrics["bad_streak"]) == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after["interval"]))


def test_interval_sums_start_again_after_each_logged_step(run):
    _, step, state, batch = run
    singles = []
    for number in range(1, 7):
        state, metrics = step(state, batch)
        record = interval_metrics(jax.device_get(metrics), ["a", "b", "c"], 40)
        singles.append(record)
        assert float(metrics["steps"]) == (number - 1) % 3 + 1
        assert record["step"] == number
    per_step = int((batch["loss_weights"] != 0).sum())
    assert [r["trained_tokens"] for r in singles] == [per_step * n for n in (1, 2, 3, 1, 2, 3)]
    np.testing.assert_allclose(singles[0]["fill"], (9 + 7 + 5 + 8) / 40, rtol=1e-6)
    assert set(singles[2]["task_nll"]) == {"a", "b", "c"}


def test_an_interval_without_a_finite_step_has_no_means(run):
    _, step, state, batch = run
    bad = {**batch, "loss_weights": np.full_like(batch["loss_weights"], np.inf)}
    for _ in range(3):
        state, metrics = step(state, bad)
    record = interval_metrics(jax.device_get(metrics), ["a", "b", "c"], 40)
    means = {name: record[name] for name in ("loss", "nll", "z_loss", "accuracy", "fill")}
    assert all(np.isnan(value) for value in means.values()), means
    assert record["trained_tokens"] == 0 and record["skipped"] == 3
    assert record["task_nll"] == {}
    # One finite step, and the interval's means are those of that step.
    state, _ = step(state, bad)
    state, alone = step(state, batch)
    _, mixed = step(state, bad)
    assert interval_metrics(jax.device_get(mixed), ["a", "b", "c"], 40)["nll"] == pytest.approx(
        float(alone["nll"] / alone["weight"])
    )


def test_the_seed_decides_the_dropout(run):
    config, _, _, batch = run
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, dropout=0.5))
    model = build_model(config.model)
    optimizer = make_optimizer(config.optimizer, model.logical_axes)
    learning_rate = make_learning_rate(config.optimizer, 100)
    state = jax.jit(lambda: init_state(model, optimizer, 0, 3))()

    def step_with_seed(seed):
        seeded = dataclasses.replace(config, seed=seed)
        return jax.jit(make_train_step(model, optimizer, learning_rate, seeded, n_tasks=3))

    first, second = step_with_seed(1), step_with_seed(2)
    losses = [float(step(state, batch)[1]["loss"]) for step in (first, first, second)]
    assert losses[0] == losses[1] != losses[2]
