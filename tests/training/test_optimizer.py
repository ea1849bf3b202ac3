"""Optimizers and schedules against closed forms and unstacked references."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
import torch
import transformers

from ift_jax.config.schema import OptimizerConfig
from ift_jax.training.optimizer import make_learning_rate, make_optimizer

AXES = {
    "layers": {"w": ("layers", "embed", "mlp"), "scale": ("layers", "norm")},
    "head": ("embed", "vocab"),
}


def random_tree(seed, scale=1.0):
    """Parameters or gradients with the axes of `AXES`."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return (scale * rng.normal(size=shape)).astype(np.float32)

    return {"layers": {"w": draw(3, 130, 140), "scale": draw(3, 130)}, "head": draw(130, 150)}


def adafactor_by_hand(params, grads):
    """T5's Adafactor for one matrix or vector, in float64; yields the direction of each step.

    Shazeer and Stern 2018, algorithms 4 and 5, without momentum.
    """
    p = params.astype(np.float64)
    row = column = full = 0.0
    for t, grad in enumerate(grads, start=1):
        decay = 1 - t**-0.8
        squared = grad.astype(np.float64) ** 2 + 1e-30
        if p.ndim == 2:
            row = decay * row + (1 - decay) * squared.mean(axis=1)
            column = decay * column + (1 - decay) * squared.mean(axis=0)
            variance = np.outer(row, column) / row.mean()
        else:
            full = decay * full + (1 - decay) * squared
            variance = full
        update = grad / np.sqrt(variance)
        update /= max(1.0, np.sqrt((update**2).mean()))
        yield update * max(1e-3, np.sqrt((p**2).mean()))


def test_adafactor_treats_each_stacked_layer_as_t5_does():
    optimizer = make_optimizer(OptimizerConfig(name="adafactor"), AXES)
    params = random_tree(0, 0.5)
    grads = [random_tree(seed, 10.0 ** (seed - 3)) for seed in (1, 2, 3, 4)]
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    directions = []
    for grad in grads:
        direction, state = update(grad, state, params)
        directions.append(direction)

    def check(select):
        """Compares all steps of the matrix or vector that is selected from a tree."""
        expected = adafactor_by_hand(select(params), [select(grad) for grad in grads])
        for got, want in zip(directions, expected, strict=True):
            np.testing.assert_allclose(select(got), want, rtol=2e-4, atol=1e-7)

    for layer in range(3):
        check(lambda tree, i=layer: tree["layers"]["w"][i])
        check(lambda tree, i=layer: tree["layers"]["scale"][i])
    check(lambda tree: tree["head"])


def test_adafactor_takes_stacks_of_different_depths():
    """An encoder three times as deep as the decoder, as ByT5's."""
    axes = {"encoder": AXES["layers"], "decoder": AXES["layers"], "head": AXES["head"]}

    def draw(seed):
        deep, flat = random_tree(seed), random_tree(seed + 10)
        decoder = {name: value[:1] for name, value in flat["layers"].items()}
        return {"encoder": deep["layers"], "decoder": decoder, "head": deep["head"]}

    optimizer = make_optimizer(OptimizerConfig(name="adafactor"), axes)
    params, grads = draw(0), [draw(seed) for seed in (1, 2)]
    state = optimizer.init(params)
    directions = []
    for grad in grads:
        direction, state = jax.jit(optimizer.update)(grad, state, params)
        directions.append(direction)
    for side, depth in (("encoder", 3), ("decoder", 1)):
        for name in ("w", "scale"):
            for layer in range(depth):
                expected = adafactor_by_hand(
                    params[side][name][layer], [grad[side][name][layer] for grad in grads]
                )
                for got, want in zip(directions, expected, strict=True):
                    got = got[side][name][layer]
                    np.testing.assert_allclose(got, want, rtol=2e-4, atol=1e-7)


def test_adamw_and_what_it_decays():
    config = OptimizerConfig(b1=0.9, b2=0.99, eps=1e-8, weight_decay=0.1)
    optimizer = make_optimizer(config, AXES)
    params, grad = random_tree(0), random_tree(1)
    direction, _ = optimizer.update(grad, optimizer.init(params), params)
    # The first step of Adam is the sign of the gradient.
    sign = jax.tree.map(np.sign, grad)
    np.testing.assert_allclose(direction["layers"]["scale"], sign["layers"]["scale"], rtol=1e-4)
    want = sign["head"] + 0.1 * params["head"]
    np.testing.assert_allclose(direction["head"], want, rtol=1e-3, atol=1e-4)
    everything = OptimizerConfig(weight_decay=0.1, decay_norms_and_biases=True)
    optimizer = make_optimizer(everything, AXES)
    direction, _ = optimizer.update(grad, optimizer.init(params), params)
    want = sign["layers"]["scale"] + 0.1 * params["layers"]["scale"]
    np.testing.assert_allclose(direction["layers"]["scale"], want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "step", "want"),
    [
        ("constant", 0, 0.1), ("constant", 9, 1.0), ("constant", 99, 1.0),
        ("linear", 10, 1.0), ("linear", 60, 0.2 + 0.8 * 50 / 100), ("linear", 110, 0.2),
        ("cosine", 60, 0.2 + 0.8 * 0.5), ("cosine", 110, 0.2), ("cosine", 500, 0.2),
        ("rsqrt", 15, 1.0), ("rsqrt", 80, 0.5),
    ],
)  # fmt: skip
def test_schedules(name, step, want):
    config = OptimizerConfig(
        learning_rate=3.0, schedule=name, warmup_steps=10, final_ratio=0.2, rsqrt_offset=20
    )
    learning_rate = make_learning_rate(config, 110)
    np.testing.assert_allclose(learning_rate(jnp.int32(step)), 3.0 * want, rtol=1e-5)


@pytest.mark.parametrize("decay_type", ["linear", "cosine", "1-sqrt"])
@pytest.mark.parametrize("final_ratio", [0.0, 0.1])
def test_wsd_is_that_of_transformers_and_optax_at_every_step(decay_type, final_ratio):
    n_steps, warmup, decay, peak = 60, 7, 18, 3e-4
    config = OptimizerConfig(
        learning_rate=peak, schedule="wsd", warmup_steps=warmup, final_ratio=final_ratio,
        decay_steps=decay, decay_shape=decay_type,
    )  # fmt: skip
    steps = np.arange(n_steps + 5)
    got = np.asarray(make_learning_rate(config, n_steps)(steps))
    parameter = torch.nn.Parameter(torch.zeros(1))
    theirs = transformers.get_wsd_schedule(
        torch.optim.SGD([parameter], lr=peak), warmup, decay, n_steps,
        decay_type=decay_type, min_lr_ratio=final_ratio,
    ).lr_lambdas[0]  # fmt: skip
    after = steps >= warmup  # Their warm-up begins with a step that changes nothing.
    np.testing.assert_allclose(
        got[after], [peak * theirs(step) for step in steps[after]], rtol=1e-5, atol=1e-10
    )
    if decay_type == "1-sqrt":  # optax has no such decay.
        return
    falling = {
        "linear": optax.linear_schedule(peak, peak * final_ratio, decay),
        "cosine": optax.cosine_decay_schedule(peak, decay, alpha=final_ratio),
    }[decay_type]
    rising = optax.linear_schedule(peak / warmup, peak, warmup - 1)
    want = optax.join_schedules(
        [rising, optax.constant_schedule(peak), falling], [warmup, n_steps - decay]
    )
    np.testing.assert_allclose(got, want(steps), rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize(
    ("fields", "n_steps", "want"),
    [
        # nanochat: constant, then in a straight line to 0 in the last half.
        ({"decay_ratio": 0.5}, 8, [1, 1, 1, 1, 1, 0.75, 0.5, 0.25]),
        # A decay that is longer than the run begins after the warm-up.
        ({"decay_steps": 100, "warmup_steps": 2}, 6, [0.5, 1, 1, 0.75, 0.5, 0.25]),
        # Steps win over the ratio.
        ({"decay_steps": 2, "decay_ratio": 1.0}, 4, [1, 1, 1, 0.5]),
        ({"decay_ratio": 1.0, "decay_shape": "1-sqrt"}, 4, [1, 0.5, 1 - 0.5**0.5, 1 - 0.75**0.5]),
    ],
)
def test_where_the_decay_of_wsd_begins(fields, n_steps, want):
    config = OptimizerConfig(learning_rate=1.0, schedule="wsd", **fields)
    got = make_learning_rate(config, n_steps)(np.arange(n_steps))
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_warmup_by_ratio():
    config = OptimizerConfig(learning_rate=1e-3, schedule="constant", warmup_ratio=0.1)
    learning_rate = make_learning_rate(config, 50)
    rates = [learning_rate(jnp.int32(step)) for step in range(6)]
    np.testing.assert_allclose(rates, [2e-4, 4e-4, 6e-4, 8e-4, 1e-3, 1e-3], rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "moment_dtype", "reference"),
    [
        ("lion", "float32", optax.scale_by_lion(0.8, 0.95)),
        ("sgd", "float32", optax.trace(0.8)),
        ("sgd", "bfloat16", optax.trace(0.8, accumulator_dtype=jnp.bfloat16)),
        ("adamw", "bfloat16", optax.scale_by_adam(0.8, 0.95, 1e-8, mu_dtype=jnp.bfloat16)),
    ],
)
def test_they_are_those_of_optax(name, moment_dtype, reference):
    config = OptimizerConfig(name=name, b1=0.8, b2=0.95, moment_dtype=moment_dtype)
    ours, params = make_optimizer(config, AXES), random_tree(0)
    state, want_state = ours.init(params), reference.init(params)
    for seed in range(1, 4):
        got, state = ours.update(random_tree(seed), state, params)
        want, want_state = reference.update(random_tree(seed), want_state, params)
        jax.tree.map(np.testing.assert_array_equal, got, want)
    moments = {leaf.dtype.name for leaf in jax.tree.leaves(state) if leaf.ndim}
    assert moment_dtype in moments


def test_muon_is_that_of_optax_for_each_layer_separately():
    ours = make_optimizer(OptimizerConfig(name="muon", b1=0.8, b2=0.95), AXES)
    of_matrices = optax.contrib.muon(1.0, beta=0.8, consistent_rms=0.2)
    of_others = optax.scale_by_adam(0.8, 0.95, 1e-8)

    def others(tree):
        return {"scale": tree["layers"]["scale"], "head": tree["head"]}

    params = random_tree(0)
    state, others_state = ours.init(params), of_others.init(others(params))
    matrix_states = [of_matrices.init(w) for w in params["layers"]["w"]]
    for seed in (1, 2):
        grad = random_tree(seed)
        got, state = ours.update(grad, state, params)
        want, others_state = of_others.update(others(grad), others_state)
        jax.tree.map(np.testing.assert_array_equal, others(got), want)
        for i in range(3):
            want, matrix_states[i] = of_matrices.update(
                grad["layers"]["w"][i], matrix_states[i], params["layers"]["w"][i]
            )
            np.testing.assert_allclose(got["layers"]["w"][i], -want, rtol=1e-4, atol=1e-4)
    rms = np.sqrt(np.mean(np.square(got["layers"]["w"])))
    assert 0.1 < rms < 0.3  # The RMS of AdamW's updates is about 0.2.


def test_bfloat16_moments_stay_close():
    """A rounding errs by at most 2^-9 of a moment, and 1 / (1 - b1) = 10 errors remain: 0.02."""
    exact = make_optimizer(OptimizerConfig(moment_dtype="float32"), AXES)
    rounded = make_optimizer(OptimizerConfig(moment_dtype="bfloat16"), AXES)
    params = random_tree(0)
    exact_state, rounded_state = exact.init(params), rounded.init(params)
    for seed in range(1, 9):
        grad = random_tree(seed)
        want, exact_state = exact.update(grad, exact_state, params)
        got, rounded_state = rounded.update(grad, rounded_state, params)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(want))
    for a, b in zip(jax.tree.leaves(want), jax.tree.leaves(got), strict=True):
        np.testing.assert_allclose(a, b, atol=0.02 * largest)
