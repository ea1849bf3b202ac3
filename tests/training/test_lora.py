"""Frozen parameters cost nothing and stay; trained ones get the right gradient."""

import dataclasses
import functools
import re

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
from ift_jax.models.dropout import drop_elements
from ift_jax.models.fused_cross_entropy import CrossEntropyOptions, fused_linear_cross_entropy
from ift_jax.models.model import build_model, join, trained_model
from ift_jax.models.quantized_params import dequantize_params
from ift_jax.sharding import rules
from ift_jax.sharding.mesh import make_mesh, mesh_from_devices
from ift_jax.training.loss_and_grads import loss_and_grads
from ift_jax.training.optimizer import make_learning_rate, make_optimizer
from ift_jax.training.state import state_of, state_shardings
from ift_jax.training.step import make_train_step
from tests.small_models import ARCHITECTURES, random_params
from tests.training.examples import BATCHES, make_examples
from tests.training.in_process import InProcess, assert_same_run

LORA = LoraConfig(rank=3, alpha=6.0, rslora=True)
DORA = LoraConfig(rank=3, dora=True, rank_pattern=("mlp=2",), alpha_pattern=("query|up=5",))
QLORA = dataclasses.replace(DORA, quantize="nf4")
NO_LORA = LoraConfig()


def flat(tree):
    """The arrays of a tree by dotted path."""
    return traverse_util.flatten_dict(tree, sep=".")


def on_host(tree):
    """The same by dotted path, as NumPy arrays: JAX compiles every operation for every shape."""
    return flat(jax.device_get(tree))


def batch_of(architecture, packed=False):
    """Eight rows: of an example each, or of two and then of none."""
    examples = make_examples([9, 7, 5, 8, 6, 9, 4, 7], [3, 1, 4, 2, 5, 2, 6, 3])
    if packed:
        rows = [examples[i : i + 2] for i in range(0, 8, 2)] + [[]] * 4
        return BATCHES[architecture](rows, 16)
    return BATCHES[architecture]([[example] for example in examples], 10)


def unquantized(lora):
    return dataclasses.replace(lora, quantize="none")


def held(model, params):
    """The parameters as a run of the model holds them."""
    trained, frozen = model.split(params)
    return join(trained, jax.jit(model.cast_frozen)(frozen))


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


@pytest.mark.parametrize(
    ("architecture", "lora"), [("decoder", DORA), ("encoder_decoder", LORA), ("decoder", QLORA)]
)
def test_adapters_get_the_gradient_of_the_merged_weights(architecture, lora):
    """With W' = g (W + s A B): dA = s g dW' B^T and dB = s g A^T dW', where g is 1.

    With DoRA g = m / |W + s A B|. The norm is a constant there, so dm is the sum of dW' W' / m over
    a column. The adapters' rows are packed, sharded, and split; the truth has an example a row.
    """
    sizes = dict(d_model=256, d_ff=192, head_dim=32) if lora == QLORA else {}  # Several blocks.
    config = dataclasses.replace(ARCHITECTURES[architecture], **sizes)
    plain = build_model(config)
    model = trained_model(Config(model=config, lora=lora))
    of_floats = trained_model(Config(model=config, lora=unquantized(lora)))
    params = held(model, random_params(of_floats, 0.1))
    batch = batch_of(architecture)
    merged = jax.jit(functools.partial(lora_lib.merge, config=lora))(params)
    want_loss, dense_gradient = gradients(plain, merged, batch)
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    if lora == QLORA:  # Gathered along the lines of a torus.
        mesh = mesh_from_devices(np.array(jax.devices()).reshape(1, 4, 1, 2, 1), line=2)
    with jax.set_mesh(mesh):
        shardings = rules.tree_shardings(mesh, model.logical_axes, model.shapes)
        sharded = jax.device_put(params, shardings)
        packed = batch_of(architecture, packed=True)
        loss, gradient = gradients(model, sharded, packed, microbatches=2)
    if lora == QLORA:
        values = sharded["layers"]["mlp"]["up"]["weight_values"]
        assert values.dtype == jnp.uint8 and values.shape == (2, 4, 32, 192)
        assert values.sharding.shard_shape(values.shape) == (2, 1, 32, 96)
    np.testing.assert_allclose(loss, want_loss, rtol=1e-5)
    got = on_host(gradient)
    # Each kind of block has seven projections, and cross-attention has four more.
    n_projections = 7 if architecture == "decoder" else 7 + 7 + 4
    assert len(got) == (3 if lora.dora else 2) * n_projections
    own, whole, dense = flat(dequantize_params(params)), on_host(merged), on_host(dense_gradient)
    for path, value in got.items():
        module, kind = path.rsplit(".", 1)
        a, b = own[f"{module}.lora_a"], own[f"{module}.lora_b"]
        dw, scale = dense[f"{module}.weight"], lora.scale_of(module)
        if lora.dora:
            m = own[f"{module}.lora_magnitude"][:, None, :]
            norm = np.linalg.norm(own[f"{module}.weight"] + scale * a @ b, axis=1, keepdims=True)
            want_m = (dw * whole[f"{module}.weight"] / m).sum(axis=1)
            dw = m / norm * dw
        if kind == "lora_magnitude":
            want = want_m
        else:
            want = scale * (dw @ b.swapaxes(1, 2) if kind == "lora_a" else a.swapaxes(1, 2) @ dw)
        np.testing.assert_allclose(value, want, rtol=2e-4, atol=2e-5, err_msg=path)


def test_ranks_and_scales_follow_the_first_pattern_that_matches():
    lora = LoraConfig(
        rank=4, alpha=8.0, rank_pattern=("mlp.up=2", "mlp=6"), alpha_pattern=("down|query=3",)
    )
    model = trained_model(Config(model=ARCHITECTURES["decoder"], lora=lora))
    shapes = flat(model.shapes)
    ranks = {"attention.query": 4, "attention.out": 4, "mlp.up": 2, "mlp.down": 6, "mlp.gate": 6}
    for name, rank in ranks.items():
        assert shapes[f"layers.{name}.lora_a"].shape[-1] == rank == lora.rank_of(f"layers.{name}")
    assert lora.scale_of("layers.mlp.down") == 3 / 6 and lora.scale_of("layers.mlp.up") == 8 / 2
    assert dataclasses.replace(lora, rslora=True).scale_of("layers.mlp.gate") == 8 / 6**0.5


def test_dropout_is_that_of_the_adapters_alone_and_does_not_depend_on_the_split():
    lora = dataclasses.replace(LORA, dropout=0.5)
    model = trained_model(Config(model=ARCHITECTURES["decoder"], lora=lora))
    params, batch = random_params(model, std=0.2), batch_of("decoder")

    @jax.jit
    def hidden_of(params, batch, dropout_key):
        return model.hidden(params, batch, dropout_key)

    keys = [jax.random.key(step) for step in range(2)]
    first, other = (np.asarray(hidden_of(params, batch, key)) for key in keys)
    assert np.abs(first - other).max() > 0.1
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    with jax.set_mesh(mesh):  # Its rows in another order, as microbatches have them.
        shardings = rules.tree_shardings(mesh, model.logical_axes, model.shapes)
        turned = {name: array[::-1] for name, array in batch.items()}
        sharded = hidden_of(jax.device_put(params, shardings), turned, keys[0])
    np.testing.assert_allclose(np.asarray(sharded)[::-1], first, rtol=1e-4, atol=1e-5)
    # Nothing can be dropped while the product of the adapters is zero.
    fresh = {path: leaf * (not path.endswith("lora_b")) for path, leaf in flat(params).items()}
    fresh = traverse_util.unflatten_dict(fresh, sep=".")
    np.testing.assert_array_equal(*(hidden_of(fresh, batch, key) for key in keys))


def test_a_dropped_number_is_zero_and_the_rest_keeps_the_mean():
    keys = jax.random.key_data(jax.random.split(jax.random.key(0), 3))
    dropped = np.asarray(drop_elements(jnp.ones((3, 50, 40), jnp.bfloat16), keys, 0.25), np.float32)
    assert set(np.unique(dropped)) == {0.0, np.float32(jnp.bfloat16(1 / 0.75))}
    np.testing.assert_allclose((dropped == 0).mean(axis=(1, 2)), 0.25, atol=0.03)
    assert (dropped[0] != dropped[1]).any() and (dropped[:, 0] != dropped[:, 1]).any()


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
    dora = dataclasses.replace(LORA, dora=True)
    model = trained_model(Config(model=ARCHITECTURES["decoder"], lora=dora))
    params = jax.jit(model.init)(jax.random.key(5))
    adapters, frozen = model.split(params)
    merged = jax.jit(lambda params: lora_lib.merge(params, LORA))(params)
    want = jax.jit(plain.init)(jax.random.key(5))
    jax.tree.map(np.testing.assert_array_equal, merged, want)

    adapters = jax.jit(lambda a, f: lora_lib.with_magnitudes(a, f, dora, jnp.float32))(
        adapters, frozen
    )
    norms = np.linalg.norm(want["layers"]["mlp"]["up"]["weight"], axis=1)
    np.testing.assert_allclose(adapters["layers"]["mlp"]["up"]["lora_magnitude"], norms, rtol=1e-6)
    merged = jax.jit(lambda params: lora_lib.merge(params, dora))(join(adapters, frozen))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), merged, want)
    a = on_host(adapters)["layers.mlp.up.lora_a"]
    assert 0.9 * 16**-0.5 < np.abs(a).max() <= 16**-0.5
    assert not np.array_equal(a[0], a[1])
    assert not on_host(adapters)["layers.mlp.up.lora_b"].any()
    assert join(adapters, frozen).keys() == params.keys()


@pytest.mark.parametrize(("pattern", "which"), [("mpl", "no"), (".", "every")])
def test_a_pattern_that_freezes_nothing_or_everything_is_refused(pattern, which):
    config = Config(model=ARCHITECTURES["decoder"], optimizer=OptimizerConfig(freeze=pattern))
    message = f"matches {which} parameter; there are .*layers.mlp.up.weight"
    with pytest.raises(UserError, match=message):
        trained_model(config)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            dict(targets="q_proj"),
            "lora.targets: 'q_proj' matches no projection; there are layers.attention.key, ",
        ),
        (dict(targets="mlp", rank_pattern=("query=2",)), "rank_pattern: 'query' matches no proj"),
        (dict(alpha_pattern=("mlp=2", "x=3")), "alpha_pattern: 'x' matches no projection with an"),
        (
            dict(rank_pattern=("up=2", "mlp=3", "gate|up=4")),
            "rank_pattern: 'gate|up=4' never counts, because the first pattern that matches a "
            "projection does; put it before 'mlp=3', 'up=2', or leave it out",
        ),
        (dict(alpha_pattern=("mlp=2", "mlp=2")), "alpha_pattern: 'mlp=2' never counts"),
    ],
)
def test_what_matches_no_projection_is_refused(fields, message):
    with pytest.raises(UserError, match=re.escape(message)):
        trained_model(Config(model=ARCHITECTURES["decoder"], lora=LoraConfig(rank=1, **fields)))


def test_the_projections_of_an_encoder_decoder_are_those_that_it_has():
    config = Config(
        model=ARCHITECTURES["encoder_decoder"], lora=LoraConfig(rank=1, targets="q_proj")
    )
    with pytest.raises(UserError, match="no projection; .*decoder.layers.cross.key"):
        trained_model(config)


def test_a_killed_lora_run_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    base, whole, broken = (tmp_path / name for name in ("base", "whole", "broken"))
    short = ["train.steps=2", "train.preview_prompts=0", "train.eval_every=0"]
    assert InProcess(monkeypatch, short).train(base) == 0
    adapters = ["rank=2", "dora=True", "dropout=0.1", "rank_pattern=('mlp=3',)", "quantize=nf4"]
    fields = [f"model.init_from={base}", *(f"lora.{field}" for field in adapters)]
    process = InProcess(monkeypatch, fields)
    assert process.train(whole) == 0
    n_events = len(process.events)
    # Killed before its first checkpoint, after it, and in the middle of a later one.
    for at_event, lose_save in ((n_events // 4, False), (n_events // 2, False), (4, True)):
        assert process.kill(broken, at_event, lose_save)
    assert process.train(broken) == 0
    assert_same_run(broken, whole)
