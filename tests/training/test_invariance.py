"""Contracts 2 and 3: packed rows equal their examples alone, and no cut of a batch matters.

Float32; the tolerance is 1e-5 of the norm, of the loss and of every parameter's gradient.
"""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from ift_jax.config.schema import LossConfig, MeshConfig
from ift_jax.models.attention import reference
from ift_jax.models.model import build_model
from ift_jax.sharding import rules
from ift_jax.sharding.batch_placement import batch_sharding
from ift_jax.sharding.mesh import make_mesh, mesh_from_devices
from ift_jax.training.loss_and_grads import loss_and_grads
from tests.training.examples import BATCHES, CONFIGS, make_examples, random_params

ARCHITECTURES = sorted(CONFIGS)
NORMALIZATIONS = ("tokens", "examples", "constant", "sum")
LENGTH = 16
# Among them: one that fills a row, examples of length 1, and inputs of length zero.
LENGTHS = [16, 4, 1, 7, 2, 7, 3, 1, 7, 4, 1, 16, 2, 16, 7, 3]
ENCODER_LENGTHS = [16, 0, 4, 4, 7, 5, 0, 7, 2, 1, 1, 16, 4, 0, 7, 4]


def first_fit(examples, length):
    """The plainest packer: each example into the first row with room on both sides."""
    rows = []
    for example in examples:
        for row in rows:
            wanted = [example, *row]
            both = sum(len(e.tokens) for e in wanted), sum(len(e.encoder_tokens) for e in wanted)
            if max(both) <= length:
                row.append(example)
                break
        else:
            rows.append([example])
    return rows


def loss_config(normalization):
    return LossConfig(normalization=normalization, constant=37.0, z_loss=1e-3, label_smoothing=0.1)


@functools.cache  # One compiled program for all batches of a shape.
def program(model, normalization, microbatches, dropout):
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
    return program(model, normalization, microbatches, dropout)(params, batch)


def assert_same(got, expected, tolerance=1e-5):
    np.testing.assert_allclose(got[0], expected[0], rtol=tolerance)
    flat, _ = jax.tree_util.tree_flatten_with_path(got[1])
    whole = np.sqrt(sum(np.sum(np.square(np.asarray(g))) for g in jax.tree.leaves(expected[1])))
    for (path, a), b in zip(flat, jax.tree.leaves(expected[1]), strict=True):
        error = np.linalg.norm(np.asarray(a, np.float64) - np.asarray(b, np.float64))
        # A parameter whose gradient is a tiny part of the whole is held to the whole's rounding.
        scale = max(np.linalg.norm(b), 1e-2 * whole)
        assert error <= tolerance * scale, f"{jax.tree_util.keystr(path)}: {error / scale:.2e}"


@pytest.fixture(scope="module", params=ARCHITECTURES)
def case(request):
    """Architecture, model, params and examples."""
    model = build_model(CONFIGS[request.param])
    params = random_params(model)
    return request.param, model, params, make_examples(LENGTHS, ENCODER_LENGTHS)


@pytest.fixture(scope="module")
def alone(case):
    """The truth: each example by itself in a batch of its own length, combined by hand."""
    architecture, model, params, examples = case
    sums, grads = [], []
    for example in examples:
        length = max(len(example.tokens), len(example.encoder_tokens), 1)
        batch = BATCHES[architecture]([[example]], length)
        # Packed rows give an example its weights' sum; alone, "sum" leaves them as they are.
        loss, grad, _ = compute(model, params, batch, "sum")
        sums.append(np.float64(loss))
        grads.append(jax.tree.map(lambda g: np.asarray(g, np.float64), grad))
    first = 0 if architecture == "encoder_decoder" else 1  # A decoder's first token has no loss.
    weights = [np.float64(example.weights[first:].sum()) for example in examples]
    factors = {
        "tokens": [1 / sum(weights)] * len(examples),
        "examples": [1 / w / sum(w > 0 for w in weights) if w else 0.0 for w in weights],
        "constant": [1 / 37.0] * len(examples),
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
    assert_same(compute(model, params, batch, normalization), alone[normalization])


def padded_rows(examples, multiple=8):
    rows = first_fit(examples, LENGTH)
    return rows + [[]] * (-len(rows) % multiple)


@pytest.mark.parametrize(
    ("microbatches", "normalization"),
    [(2, n) for n in NORMALIZATIONS] + [(4, "examples")],
)
def test_microbatches(case, alone, normalization, microbatches):
    architecture, model, params, examples = case
    batch = BATCHES[architecture](padded_rows(examples), LENGTH)
    got = compute(model, params, batch, normalization, microbatches)
    assert_same(got, alone[normalization])


MESHES = [
    MeshConfig(data=1), MeshConfig(data=2), MeshConfig(data=4), MeshConfig(data=8),
    MeshConfig(data=1, fsdp=8), MeshConfig(data=1, tensor=4), MeshConfig(data=1, sequence=4),
    MeshConfig(data=2, fsdp=2, tensor=2), MeshConfig(data=2, tensor=2, sequence=2),
]  # fmt: skip


def on_mesh(case, mesh, shards):
    """Loss and gradient on a mesh; normalisation by examples, which no cut may come before."""
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


@pytest.mark.parametrize("shape", [(1, 8, 1, 1), (2, 4, 1, 1), (1, 4, 2, 1)], ids=str)
def test_parameters_cut_over_lines_of_a_torus(case, alone, shape):
    mesh = mesh_from_devices(np.array(jax.devices()).reshape(shape), line=2)
    assert mesh.shape["fsdp_line"] == 2
    assert_same(on_mesh(case, mesh, shape[0] * shape[1]), alone["examples"])


@pytest.mark.parametrize("implementation", ("blockwise", "splash", "triton"))
def test_implementations_of_attention_with_the_length_cut(case, alone, implementation, monkeypatch):
    architecture, _, params, examples = case
    monkeypatch.setattr(reference, "BLOCK_PAIRS", 1)  # Blocks of the least size.
    model = build_model(dataclasses.replace(CONFIGS[architecture], attention=implementation))
    host = BATCHES[architecture](padded_rows(examples), LENGTH)
    mesh = make_mesh(MeshConfig(data=2, sequence=4))
    with jax.set_mesh(mesh):
        shardings = rules.tree_shardings(mesh, model.logical_axes, params)
        params = jax.device_put(params, shardings)
        batch = {k: jax.device_put(v, batch_sharding(mesh, v.shape)) for k, v in host.items()}
        assert_same(compute(model, params, batch, "tokens"), alone["tokens"])


def test_dropout_does_not_depend_on_the_cut(case):
    architecture, _, params, examples = case
    fields = {"dropout_schedule": "linear"} if architecture == "decoder" else {}
    model = build_model(dataclasses.replace(CONFIGS[architecture], dropout=0.3, **fields))
    batch = BATCHES[architecture](padded_rows(examples), LENGTH)
    results = [compute(model, params, batch, "tokens", m, dropout=True) for m in (1, 4)]
    without = compute(model, params, batch, "tokens")
    assert abs(float(results[0][0] - without[0])) > 1e-3
    assert_same(results[1], results[0])


def test_task_sums_are_the_sum_over_tasks(case):
    architecture, model, params, examples = case
    batch = BATCHES[architecture](padded_rows(examples), LENGTH)
    sums = compute(model, params, batch, "tokens", microbatches=2)[2]
    np.testing.assert_allclose(sums["task_nll"].sum(), sums["nll"], rtol=1e-5)
    np.testing.assert_allclose(sums["task_weight"].sum(), sums["weight"], rtol=1e-6)
    for task in range(3):
        only = {**batch}
        name = "decoder_loss_weights" if architecture == "encoder_decoder" else "loss_weights"
        ids = batch[name.replace("loss_weights", "task_ids")]
        only[name] = np.where(ids == task, batch[name], 0)
        expected = compute(model, params, only, "tokens")[2]["nll"]
        np.testing.assert_allclose(sums["task_nll"][task], expected, rtol=1e-5)


def test_packed_gradient_sees_leaks(case, alone):
    """The test above can fail: with one segment id for a whole row, it does."""
    architecture, model, params, examples = case
    batch = BATCHES[architecture](first_fit(examples, LENGTH), LENGTH)
    for name in list(batch):
        if name.endswith("segment_ids"):
            batch[name] = (batch[name] > 0).astype(np.int32)
    with pytest.raises(AssertionError):
        assert_same(compute(model, params, batch, "tokens"), alone["tokens"])
