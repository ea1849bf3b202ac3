"""What is frozen costs nothing and stays; what is trained gets the gradient it should."""

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
from tests.training import runs
from tests.training.examples import BATCHES, CONFIGS, make_examples, random_params
from tests.training.test_resume import assert_identical

LORA = LoraConfig(rank=3, alpha=6.0, rslora=True)


def flat(tree):
    return traverse_util.flatten_dict(tree, sep=".")


def batch_of(architecture, n=8):
    examples = make_examples([9, 7, 5, 8, 6, 9, 4, 7][:n], [3, 1, 4, 2, 5, 2, 6, 3][:n])
    return BATCHES[architecture]([[example] for example in examples], 10)


def gradients(model, params, batch, microbatches=1):
    trained, frozen = model.split(params)
    grad = functools.partial(
        loss_and_grads,
        model,
        loss=LossConfig(),
        n_tasks=3,
        gradient_accumulation_steps=microbatches,
    )
    return jax.jit(lambda t, f, b: grad(t, b, frozen=f)[:2])(trained, frozen, batch)


@pytest.mark.parametrize("architecture", sorted(CONFIGS))
def test_adapters_get_the_gradient_of_the_merged_weights(architecture):
    """With W' = W + s A B: dA = s dW' B^T and dB = s A^T dW'."""
    plain = build_model(CONFIGS[architecture])
    model = trained_model(Config(model=CONFIGS[architecture], lora=LORA))
    params, batch = random_params(model), batch_of(architecture)
    want_loss, dense = gradients(plain, lora_lib.merge(params, LORA), batch)
    dense, own, s = flat(dense), flat(params), lora_lib.scale(LORA)
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    with jax.set_mesh(mesh):
        cut = jax.device_put(params, rules.tree_shardings(mesh, model.logical_axes, model.shapes))
        loss, got = gradients(model, cut, batch, microbatches=2)
    np.testing.assert_allclose(loss, want_loss, rtol=1e-5)
    got = flat(got)
    assert len(got) == 2 * 7 * (1 if architecture == "decoder" else 2) + (
        0 if architecture == "decoder" else 8
    )
    for path, value in got.items():
        module, kind = path.rsplit(".", 1)
        a, b, dw = own[f"{module}.lora_a"], own[f"{module}.lora_b"], dense[f"{module}.weight"]
        want = dw @ b.swapaxes(1, 2) if kind == "lora_a" else a.swapaxes(1, 2) @ dw
        np.testing.assert_allclose(value, s * want, rtol=2e-4, atol=2e-5, err_msg=path)


def trainer(architecture, **fields):
    config = Config(
        model=CONFIGS[architecture],
        train=TrainConfig(steps=4, gradient_accumulation_steps=2),
        optimizer=OptimizerConfig(learning_rate=1e-2, freeze=fields.get("freeze", "")),
        lora=fields.get("lora", LoraConfig()),
    )
    config = dataclasses.replace(
        config, model=dataclasses.replace(config.model, dtype=fields.get("dtype", "float32"))
    )
    model = trained_model(config)
    tx = make_optimizer(config.optimizer, model.split(model.logical_axes)[0])
    step = make_train_step(model, tx, make_learning_rate(config.optimizer, 4), config, n_tasks=3)
    state = state_of(model, random_params(model), tx, 3)
    return model, step, state


@pytest.mark.parametrize("fields", [dict(lora=LORA, dtype="bfloat16"), dict(freeze="mlp|embed")])
def test_frozen_parameters_have_no_moments_and_stay(fields):
    model, step, state = trainer("decoder", **fields)
    trained, frozen = map(flat, model.split(model.shapes))
    assert trained and frozen
    matching = {path for path in flat(model.shapes) if "mlp" in path or "embed" in path}
    if "freeze" in fields:
        assert set(frozen) == matching
    else:
        assert all(path.endswith(("lora_a", "lora_b")) for path in trained)
    moments = [leaf for leaf in jax.tree.leaves(state["opt_state"]) if leaf.ndim]
    n_trained = sum(int(np.prod(leaf.shape)) for leaf in trained.values())
    assert sum(leaf.size for leaf in moments) == 2 * n_trained
    before = flat(state["frozen"])
    assert fields.get("dtype") != "bfloat16" or before["embedding"].dtype == jnp.bfloat16
    batch = batch_of("decoder")
    mesh = make_mesh(MeshConfig(data=4, fsdp=2))
    with jax.set_mesh(mesh):
        shardings = state_shardings(model, mesh, state)
        cut = jax.device_put(state, shardings)
        after, _ = jax.jit(step, out_shardings=(shardings, None))(cut, batch)
    for path, leaf in flat(after["frozen"]).items():
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(before[path]), err_msg=path)
    # B's gradient is not zero, so every adapter of the pair moves with random A and B.
    for path, leaf in flat(after["params"]).items():
        assert np.abs(leaf - flat(state["params"])[path]).max() > 1e-4, path


def test_a_frozen_parameter_leaves_the_others_their_gradient():
    plain, batch = build_model(CONFIGS["encoder_decoder"]), batch_of("encoder_decoder")
    config = Config(model=plain.config, optimizer=OptimizerConfig(freeze=r"^encoder|embedding"))
    model, params = trained_model(config), random_params(plain)
    _, dense = gradients(plain, params, batch)
    _, got = gradients(model, params, batch)
    assert set(flat(got)) == {p for p in flat(dense) if not p.startswith(("encoder", "embedding"))}
    for path, value in flat(got).items():
        np.testing.assert_allclose(value, flat(dense)[path], rtol=1e-5, atol=1e-6, err_msg=path)


def test_a_frozen_head_has_no_gradient_in_the_program():
    x, w = jnp.ones((2, 8, 4)), jnp.ones((4, 17))
    targets, weights = jnp.zeros((2, 8), jnp.int32), jnp.ones((2, 8))

    def loss(x, w):
        return fused_linear_cross_entropy(x, w, targets, weights, CrossEntropyOptions())[0]

    dw = "f32[1,17,4]"
    assert dw in str(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(x, w))
    assert dw not in str(jax.make_jaxpr(jax.grad(loss))(x, w))
    both, alone = jax.grad(loss, argnums=(0, 1))(x, w)[0], jax.grad(loss)(x, w)
    np.testing.assert_array_equal(both, alone)


def test_a_fresh_adapter_changes_nothing_and_leaves_the_start_as_it_was():
    plain = build_model(CONFIGS["decoder"])
    model = trained_model(Config(model=CONFIGS["decoder"], lora=LORA))
    got = jax.jit(model.init)(jax.random.key(5))
    merged = lora_lib.merge(got, LORA)
    jax.tree.map(np.testing.assert_array_equal, merged, jax.jit(plain.init)(jax.random.key(5)))
    adapters = flat(model.split(got)[0])
    a = adapters["layers.mlp.up.lora_a"]
    assert 0.9 * 16**-0.5 < np.abs(a).max() <= 16**-0.5 and not np.array_equal(a[0], a[1])
    assert not adapters["layers.mlp.up.lora_b"].any()
    assert join(*model.split(got)).keys() == got.keys()
    for pattern in ("mpl", "."):
        frozen = Config(model=CONFIGS["decoder"], optimizer=OptimizerConfig(freeze=pattern))
        with pytest.raises(UserError, match="matches no parameter, or all"):
            trained_model(frozen)
    with pytest.raises(UserError, match="matches no projection"):
        trained_model(Config(model=CONFIGS["decoder"], lora=LoraConfig(rank=1, targets="q_proj")))


@pytest.mark.slow
def test_a_killed_lora_run_ends_as_if_it_had_not_been(tmp_path):
    base, whole, broken = (tmp_path / name for name in ("base", "whole", "broken"))
    short = ["train.steps=2", "train.preview_prompts=0"]
    runs.finish(runs.start(runs.command(base, overrides=short)))
    start = [f"model.init_from={base}", "tokenizer.train_vocab_size=0", "lora.rank=2"]
    command = functools.partial(runs.command, overrides=start)
    runs.finish(runs.start(command(whole)))
    process = runs.start(command(broken))
    runs.wait_until(lambda: any(r["step"] >= 24 for r in runs.records(broken)), process)
    runs.kill(process)
    assert "resumed at step" in runs.finish(runs.start(command(broken)))
    assert_identical(broken, whole)
