"""Frozen parameters cost nothing and stay; trained ones get the right gradient."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from ift_jax.config.schema import (
    Config,
    LoraConfig,
    LossConfig,
    MeshConfig,
    OptimizerConfig,
    TrainConfig,
)
from ift_jax.errors import UserError
from ift_jax.models import lora as lora_lib
from ift_jax.models.fused_cross_entropy import CrossEntropyOptions, fused_linear_cross_entropy
from ift_jax.models.model import build_model, join, trained_model
from ift_jax.sharding import rules
from ift_jax.sharding.mesh import make_mesh
from ift_jax.training.loss_and_grads import loss_and_grads
from ift_jax.training.optimizer import make_learning_rate, make_optimizer
from ift_jax.training.state import state_of, state_shardings
from ift_jax.training.step import make_train_step
from tests.small_models import ARCHITECTURES, random_params
from tests.training.examples import BATCHES, make_examples
from tests.training.in_process import InProcess, assert_same_run

LORA = LoraConfig(rank=3, alpha=6.0, rslora=True)
NO_LORA = LoraConfig()


def flat(tree):
    """The arrays of a tree by dotted path."""
    return traverse_util.flatten_dict(tree, sep=".")


def on_host(tree):
    """The same by dotted path, as NumPy arrays: JAX compiles every operation for every shape."""
    return flat(jax.device_get(tree))


def batch_of(architecture):
    examples = make_examples([9, 7, 5, 8, 6, 9, 4, 7], [3, 1, 4, 2, 5, 2, 6, 3])
    return BATCHES[architecture]([[example] for example in examples], 10)


def gradients(model, params, batch, microbatches=1):
    """Loss and gradient of the trained parameters."""
    trained, frozen = model.split(params)
    grad = functools.partial(
        loss_and_grads,
        model,
        loss=LossConfig(),
        n_tasks=3,
        gradient_accumulation_steps=microbatches,
    )
    return jax.jit(lambda t, f, b: grad(t, b, frozen=f)[:2])(trained, frozen, batch)


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_adapters_get_the_gradient_of_the_merged_weights(architecture):
    """With W' = W + s A B: dA = s dW' B^T and dB = s A^T dW'."""
    plain = build_model(ARCHITECTURES[architecture])
    model = trained_model(Config(model=ARCHITECTURES[architecture], lora=LORA))
    params = random_params(model, std=0.2)
    batch = batch_of(architecture)
    merged = jax.jit(functools.partial(lora_lib.merge, config=LORA))(params)
    want_loss, dense_gradient = gradients(plain, merged, batch)
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    with jax.set_mesh(mesh):
        shardings = rules.tree_shardings(mesh, model.logical_axes, model.shapes)
        loss, gradient = gradients(model, jax.device_put(params, shardings), batch, microbatches=2)
    np.testing.assert_allclose(loss, want_loss, rtol=1e-5)
    got = on_host(gradient)
    # Each kind of block has seven projections, and cross-attention has four more.
    assert len(got) == 2 * 7 if architecture == "decoder" else 2 * (7 + 7 + 4)
    own, dense, scale = flat(params), on_host(dense_gradient), lora_lib.scale(LORA)
    for path, value in got.items():
        module, kind = path.rsplit(".", 1)
        a, b = own[f"{module}.lora_a"], own[f"{module}.lora_b"]
        dw = dense[f"{module}.weight"]
        want = dw @ b.swapaxes(1, 2) if kind == "lora_a" else a.swapaxes(1, 2) @ dw
        np.testing.assert_allclose(value, scale * want, rtol=2e-4, atol=2e-5, err_msg=path)


def make_trainer(freeze="", lora=NO_LORA, dtype="float32"):
    """A small decoder, its train step with two microbatches, and the state at step 0."""
    config = Config(
        model=dataclasses.replace(ARCHITECTURES["decoder"], dtype=dtype),
        train=TrainConfig(steps=4, gradient_accumulation_steps=2),
        optimizer=OptimizerConfig(learning_rate=1e-2, freeze=freeze),
        lora=lora,
    )
    model = trained_model(config)
    optimizer = make_optimizer(config.optimizer, model.split(model.logical_axes)[0])
    learning_rate = make_learning_rate(config.optimizer, 4)
    step = make_train_step(model, optimizer, learning_rate, config, n_tasks=3)
    state = jax.jit(lambda params: state_of(model, params, optimizer, 3))(random_params(model, 0.2))
    return model, step, state


@pytest.mark.parametrize("fields", [dict(lora=LORA, dtype="bfloat16"), dict(freeze="mlp|embed")])
def test_frozen_parameters_have_no_moments_and_stay(fields):
    model, step, state = make_trainer(**fields)
    trained, frozen = map(flat, model.split(model.shapes))
    assert trained and frozen
    if "freeze" in fields:
        assert set(frozen) == {p for p in flat(model.shapes) if "mlp" in p or "embed" in p}
    else:
        assert all(path.endswith(("lora_a", "lora_b")) for path in trained)
    moments = [leaf for leaf in jax.tree.leaves(state["opt_state"]) if leaf.ndim]
    n_trained = sum(int(np.prod(leaf.shape)) for leaf in trained.values())
    assert sum(leaf.size for leaf in moments) == 2 * n_trained
    before = on_host(state["frozen"])
    if "lora" in fields:
        assert before["embedding"].dtype == jnp.bfloat16
    mesh = make_mesh(MeshConfig(data=4, fsdp=2))
    with jax.set_mesh(mesh):
        shardings = state_shardings(model, mesh, state)
        sharded = jax.device_put(state, shardings)
        after, _ = jax.jit(step, out_shardings=(shardings, None))(sharded, batch_of("decoder"))
    for path, leaf in on_host(after["frozen"]).items():
        np.testing.assert_array_equal(leaf, before[path], err_msg=path)
    # With random A and B the gradient of both is not zero, so every adapter moves.
    start = on_host(state["params"])
    for path, leaf in on_host(after["params"]).items():
        assert np.abs(leaf - start[path]).max() > 1e-4, path


def test_a_frozen_parameter_leaves_the_others_their_gradient():
    plain = build_model(ARCHITECTURES["encoder_decoder"])
    freeze = OptimizerConfig(freeze=r"^encoder|embedding")
    model = trained_model(Config(model=plain.config, optimizer=freeze))
    params, batch = random_params(plain, std=0.2), batch_of("encoder_decoder")
    dense = on_host(gradients(plain, params, batch)[1])
    got = on_host(gradients(model, params, batch)[1])
    assert set(got) == {path for path in dense if not path.startswith(("encoder", "embedding"))}
    for path, value in got.items():
        np.testing.assert_allclose(value, dense[path], rtol=1e-5, atol=1e-6, err_msg=path)


def test_a_frozen_head_has_no_gradient_in_the_program():
    x, w = jnp.ones((2, 8, 4)), jnp.ones((4, 17))
    targets, weights = jnp.zeros((2, 8), jnp.int32), jnp.ones((2, 8))

    def loss(x, w):
        return fused_linear_cross_entropy(x, w, targets, weights, CrossEntropyOptions())[0]

    gradient = jax.jit(jax.grad(loss))
    gradient_of_both = jax.jit(jax.grad(loss, argnums=(0, 1)))
    gradient_of_head = "f32[1,17,4]"
    assert gradient_of_head in str(jax.make_jaxpr(gradient_of_both)(x, w))
    assert gradient_of_head not in str(jax.make_jaxpr(gradient)(x, w))
    np.testing.assert_array_equal(gradient_of_both(x, w)[0], gradient(x, w))


def test_a_fresh_adapter_changes_nothing_and_leaves_the_start_as_it_was():
    plain = build_model(ARCHITECTURES["decoder"])
    model = trained_model(Config(model=ARCHITECTURES["decoder"], lora=LORA))
    params = jax.jit(model.init)(jax.random.key(5))
    merged = jax.jit(functools.partial(lora_lib.merge, config=LORA))(params)
    jax.tree.map(np.testing.assert_array_equal, merged, jax.jit(plain.init)(jax.random.key(5)))
    adapters, frozen = model.split(params)
    a = on_host(adapters)["layers.mlp.up.lora_a"]
    assert 0.9 * 16**-0.5 < np.abs(a).max() <= 16**-0.5
    assert not np.array_equal(a[0], a[1])
    assert not on_host(adapters)["layers.mlp.up.lora_b"].any()
    assert join(adapters, frozen).keys() == params.keys()


@pytest.mark.parametrize("pattern", ["mpl", "."])
def test_a_pattern_that_freezes_nothing_or_everything_is_refused(pattern):
    config = Config(model=ARCHITECTURES["decoder"], optimizer=OptimizerConfig(freeze=pattern))
    with pytest.raises(UserError, match="matches no parameter, or all"):
        trained_model(config)


def test_targets_that_match_no_projection_are_refused():
    no_such_projection = LoraConfig(rank=1, targets="q_proj")
    with pytest.raises(UserError, match="matches no projection"):
        trained_model(Config(model=ARCHITECTURES["decoder"], lora=no_such_projection))


def test_a_killed_lora_run_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    base, whole, broken = (tmp_path / name for name in ("base", "whole", "broken"))
    short = ["train.steps=2", "train.preview_prompts=0", "train.eval_every=0"]
    assert InProcess(monkeypatch, short).train(base) == 0
    process = InProcess(monkeypatch, [f"model.init_from={base}", "lora.rank=2"])
    assert process.train(whole) == 0
    n_events = len(process.events)
    # Killed before its first checkpoint, after it, and in the middle of a later one.
    for at_event, lose_save in ((n_events // 4, False), (n_events // 2, False), (4, True)):
        assert process.kill(broken, at_event, lose_save)
    assert process.train(broken) == 0
    assert_same_run(broken, whole)
