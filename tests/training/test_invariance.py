"""Packed rows give the loss and gradient of their examples alone, however a batch is split.

Everything is float32. The loss, and the norm of the error of every parameter's gradient, must agree
to 1e-5. Nearly all of the time goes into compiling, so tests share programs where they can.
"""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from ift_jax.config.schema import LossConfig, MeshConfig
from ift_jax.models.attention import reference, tiled
from ift_jax.models.model import build_model
from ift_jax.sharding import rules
from ift_jax.sharding.batch_placement import batch_sharding
from ift_jax.sharding.mesh import make_mesh, mesh_from_devices
from ift_jax.training.loss_and_grads import loss_and_grads, loss_arrays, weighted_loss_and_grads
from ift_jax.training.loss_normalization import normalized_weights
from tests.small_models import ARCHITECTURES, random_params
from tests.training.examples import BATCHES, make_examples

NORMALIZATIONS = ("tokens", "examples", "constant", "sum")
CONSTANT = 37.0  # The denominator of the normalization "constant".
LENGTH = 16
# Among them are one that fills a row, examples of length 1, and inputs of length zero. The longer
# side of an example has one of four lengths: a program is compiled for each.
LENGTHS = [16, 4, 1, 7, 2, 7, 1, 1, 7, 4, 1, 16, 2, 16, 7, 3]
ENCODER_LENGTHS = [16, 0, 4, 4, 7, 5, 0, 7, 2, 1, 1, 16, 4, 0, 7, 4]


def first_fit(examples, length):
    """The plainest packer: each example goes into the first row with room on both sides."""
    rows = []
    for example in examples:
        for row in rows:
            together = [example, *row]
            n_tokens = sum(len(e.tokens) for e in together)
            n_encoder_tokens = sum(len(e.encoder_tokens) for e in together)
            if max(n_tokens, n_encoder_tokens) <= length:
                row.append(example)
                break
        else:
            rows.append([example])
    return rows


def loss_config(normalization):
    return LossConfig(
        normalization=normalization, constant=CONSTANT, z_loss=1e-3, label_smoothing=0.1
    )


@functools.cache
def program(model, normalization, microbatches, dropout):
    """`loss_and_grads`, compiled once for all batches of a shape."""
    return jax.jit(
        lambda params, batch: loss_and_grads(
            model,
            params,
            batch,
            loss_config(normalization),
            n_tasks=3,
            gradient_accumulation_steps=microbatches,
            dropout_key=jax.random.key(3) if dropout else None,
        )
    )


def compute(model, params, batch, normalization, microbatches=1, dropout=False):
    """Loss, gradient and sums of a batch."""
    return program(model, normalization, microbatches, dropout)(params, batch)


@functools.cache
def weighted_program(model, microbatches):
    """The two steps of `loss_and_grads` apart: one program serves all normalizations."""
    return jax.jit(
        lambda params, batch, normalized: weighted_loss_and_grads(
            model,
            params,
            batch,
            normalized,
            loss_config("unused"),
            n_tasks=3,
            gradient_accumulation_steps=microbatches,
            dropout_key=None,
            frozen=None,
        )
    )


@functools.cache
def normalize(normalization):
    return jax.jit(
        functools.partial(normalized_weights, normalization=normalization, constant=CONSTANT)
    )


def compute_in_two_steps(model, params, batch, normalization, microbatches=1):
    """The same as `compute`, by a program that does not depend on the normalization."""
    arrays = loss_arrays(batch)
    normalized = normalize(normalization)(arrays.loss_weights, arrays.segment_ids)
    return weighted_program(model, microbatches)(params, batch, normalized)


def assert_same(got, expected, tolerance=1e-5):
    np.testing.assert_allclose(got[0], expected[0], rtol=tolerance)
    flat, _ = jax.tree_util.tree_flatten_with_path(got[1])
    whole = np.sqrt(sum(np.sum(np.square(np.asarray(g))) for g in jax.tree.leaves(expected[1])))
    for (path, a), b in zip(flat, jax.tree.leaves(expected[1]), strict=True):
        error = np.linalg.norm(np.asarray(a, np.float64) - np.asarray(b, np.float64))
        # A parameter whose gradient is a tiny part of the whole is held to the whole's rounding.
        scale = max(np.linalg.norm(b), 1e-2 * whole)
        assert error <= tolerance * scale, f"{jax.tree_util.keystr(path)}: {error / scale:.2e}"


@pytest.fixture(scope="module", params=sorted(ARCHITECTURES))
def case(request):
    """Architecture, model, params and examples."""
    model = build_model(ARCHITECTURES[request.param])
    params = random_params(model, std=0.2)
    return request.param, model, params, make_examples(LENGTHS, ENCODER_LENGTHS)


@pytest.fixture(scope="module")
def alone(case):
    """The truth: each example in a batch of its own length, combined by hand."""
    architecture, model, params, examples = case
    sums, grads = [], []
    for example in examples:
        length = max(len(example.tokens), len(example.encoder_tokens), 1)
        batch = BATCHES[architecture]([[example]], length)
        # The loss of the example's tokens by their own weights.
        loss, grad, _ = compute(model, params, batch, "sum")
        sums.append(np.float64(loss))
        grads.append(jax.tree.map(lambda g: np.asarray(g, np.float64), grad))
    first = 0 if architecture == "encoder_decoder" else 1  # A decoder's first token has no loss.
    weights = [np.float64(example.weights[first:].sum()) for example in examples]
    factors = {
        "tokens": [1 / sum(weights)] * len(examples),
        "examples": [1 / w / sum(w > 0 for w in weights) if w else 0.0 for w in weights],
        "constant": [1 / CONSTANT] * len(examples),
        "sum": [1.0] * len(examples),
    }

    def weighted(factor):
        total = sum(f * s for f, s in zip(factor, sums, strict=True))
        return total, jax.tree.map(lambda *g: sum(map(np.multiply, factor, g)), *grads)

    return {name: weighted(factor) for name, factor in factors.items()}


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_packed_equals_alone(case, alone, normalization):
    architecture, model, params, examples = case
    batch = BATCHES[architecture](first_fit(examples, LENGTH), LENGTH)
    assert max(batch[k].max() for k in batch if k.endswith("segment_ids")) > 2
    assert_same(compute(model, params, batch, normalization), alone[normalization])


@pytest.mark.parametrize("normalization", ("tokens", "examples"))
def test_unpacked_with_padding_rows_equals_alone(case, alone, normalization):
    architecture, model, params, examples = case
    rows = [[example] for example in examples] + [[], []]
    batch = BATCHES[architecture](rows, LENGTH + 3)
    got = compute_in_two_steps(model, params, batch, normalization)
    assert_same(got, alone[normalization])


def padded_rows(examples, multiple=8):
    rows = first_fit(examples, LENGTH)
    return rows + [[]] * (-len(rows) % multiple)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_two_microbatches(case, alone, normalization):
    architecture, model, params, examples = case
    batch = BATCHES[architecture](padded_rows(examples), LENGTH)
    got = compute_in_two_steps(model, params, batch, normalization, microbatches=2)
    assert_same(got, alone[normalization])


def test_four_microbatches(case, alone):
    architecture, model, params, examples = case
    batch = BATCHES[architecture](padded_rows(examples), LENGTH)
    assert_same(compute(model, params, batch, "examples", microbatches=4), alone["examples"])


MESHES = [
    MeshConfig(data=1), MeshConfig(data=2), MeshConfig(data=4), MeshConfig(data=8),
    MeshConfig(data=1, fsdp=8), MeshConfig(data=1, tensor=4), MeshConfig(data=1, sequence=4),
    MeshConfig(data=2, fsdp=2, tensor=2), MeshConfig(data=2, tensor=2, sequence=2),
]  # fmt: skip


def on_mesh(case, mesh, shards):
    """Loss and gradient on a mesh, normalized by examples: only the whole batch can tell these."""
    architecture, model, params, examples = case
    host = BATCHES[architecture](padded_rows(examples), LENGTH)
    with jax.set_mesh(mesh):
        shardings = rules.tree_shardings(mesh, model.logical_axes, params)
        params = jax.device_put(params, shardings)
        batch = {k: jax.device_put(v, batch_sharding(mesh, v.shape)) for k, v in host.items()}
        microbatches = 2 if len(host["row_ids"]) % (2 * shards) == 0 else 1
        return compute(model, params, batch, "examples", microbatches)


@pytest.mark.parametrize("mesh_config", MESHES, ids=str)
def test_devices_and_meshes(case, alone, mesh_config):
    size = mesh_config.data * mesh_config.fsdp * mesh_config.tensor * mesh_config.sequence
    mesh = make_mesh(mesh_config, jax.devices()[:size])
    shards = mesh_config.data * mesh_config.fsdp
    assert_same(on_mesh(case, mesh, shards), alone["examples"])


@pytest.mark.parametrize("shape", [(1, 8, 1, 1, 1), (2, 4, 1, 1, 1), (1, 4, 1, 2, 1)], ids=str)
def test_parameters_cut_over_lines_of_a_torus(case, alone, shape):
    mesh = mesh_from_devices(np.array(jax.devices()).reshape(shape), line=2)
    assert mesh.shape["fsdp_line"] == 2
    assert_same(on_mesh(case, mesh, shape[0] * shape[1]), alone["examples"])


@pytest.mark.parametrize("implementation", ("blockwise", "tiled", "splash", "triton"))
def test_implementations_of_attention_with_the_length_cut(case, alone, implementation, monkeypatch):
    architecture, _, params, examples = case
    monkeypatch.setattr(reference, "BLOCK_PAIRS", 1)  # Blocks of the smallest size.
    monkeypatch.setattr(tiled, "BLOCK", 16)
    model = build_model(dataclasses.replace(ARCHITECTURES[architecture], attention=implementation))
    host = BATCHES[architecture](padded_rows(examples), LENGTH)
    mesh = make_mesh(MeshConfig(data=2, sequence=4))
    with jax.set_mesh(mesh):
        shardings = rules.tree_shardings(mesh, model.logical_axes, params)
        params = jax.device_put(params, shardings)
        batch = {k: jax.device_put(v, batch_sharding(mesh, v.shape)) for k, v in host.items()}
        assert_same(compute(model, params, batch, "tokens"), alone["tokens"])


def test_dropout_does_not_depend_on_the_split(case):
    architecture, model, params, examples = case
    fields = {"dropout_schedule": "linear"} if architecture == "decoder" else {}
    with_dropout = build_model(
        dataclasses.replace(ARCHITECTURES[architecture], dropout=0.3, **fields)
    )
    batch = BATCHES[architecture](padded_rows(examples), LENGTH)
    whole, split = (
        compute(with_dropout, params, batch, "tokens", microbatches, dropout=True)
        for microbatches in (1, 4)
    )
    unpadded = BATCHES[architecture](first_fit(examples, LENGTH), LENGTH)
    without = compute(model, params, unpadded, "tokens")
    assert abs(float(whole[0] - without[0])) > 1e-3
    assert_same(split, whole)


def test_task_sums_are_the_sum_over_tasks(case):
    architecture, model, params, examples = case
    batch = BATCHES[architecture](padded_rows(examples), LENGTH)
    _, _, sums = compute_in_two_steps(model, params, batch, "tokens", microbatches=2)
    np.testing.assert_allclose(sums["task_nll"].sum(), sums["nll"], rtol=1e-5)
    np.testing.assert_allclose(sums["task_weight"].sum(), sums["weight"], rtol=1e-6)
    unpadded = BATCHES[architecture](first_fit(examples, LENGTH), LENGTH)
    prefix = "decoder_" if architecture == "encoder_decoder" else ""
    weights = unpadded[f"{prefix}loss_weights"]
    task_ids = unpadded[f"{prefix}task_ids"]
    for task in range(3):
        of_task = np.where(task_ids == task, weights, 0)
        only = {**unpadded, f"{prefix}loss_weights": of_task}
        _, _, expected = compute(model, params, only, "tokens")
        np.testing.assert_allclose(sums["task_nll"][task], expected["nll"], rtol=1e-5)


def test_packed_gradient_sees_leaks(case, alone):
    """The comparison can fail: it does with one segment id for a whole row."""
    architecture, model, params, examples = case
    batch = BATCHES[architecture](first_fit(examples, LENGTH), LENGTH)
    for name in list(batch):
        if name.endswith("segment_ids"):
            batch[name] = (batch[name] > 0).astype(np.int32)
    with pytest.raises(AssertionError):
        assert_same(compute(model, params, batch, "tokens"), alone["tokens"])
