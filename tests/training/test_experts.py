"""A mixture of experts gives the same loss and gradient however a batch is packed and split.

With the routers' losses, which are means over the whole batch. The truth is a batch of one example
a row, without padding rows, on one device; `tests/models/test_reference.py` compares the model with
`transformers`.
"""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from ift_jax.config.checks import check
from ift_jax.config.schema import Config, DecoderConfig, LoraConfig, LossConfig, MeshConfig
from ift_jax.errors import UserError
from ift_jax.models import experts, lora
from ift_jax.models.grouped_matmul import ragged_matmul
from ift_jax.models.model import Model, build_model
from ift_jax.sharding import rules
from ift_jax.sharding.batch_placement import batch_sharding
from ift_jax.sharding.mesh import make_mesh
from ift_jax.training.interval_metrics import router_metrics
from ift_jax.training.loss_and_grads import loss_and_grads
from ift_jax.training.train_program import TrainProgram
from tests.small_models import VOCAB, random_params
from tests.training.examples import decoder_batch, make_examples
from tests.training.test_invariance import LENGTH, LENGTHS, assert_same, padded_rows

CONFIG = DecoderConfig(
    vocab_size=VOCAB,
    d_model=16,
    n_layers=3,
    n_heads=4,
    n_kv_heads=2,
    head_dim=8,
    d_ff=24,
    n_experts=8,
    experts_per_token=3,
    normalize_expert_weights=True,
    expert_layers="EED",
    dense_d_ff=24,
    shared_d_ff=12,
)
EXAMPLES = make_examples(LENGTHS, LENGTHS)


@functools.cache
def model_and_params():
    model = build_model(CONFIG)
    return model, random_params(model, std=0.3)


@functools.cache
def program(model, microbatches, balance, z_loss):
    loss = LossConfig(router_balance=balance, router_z_loss=z_loss)
    return jax.jit(
        lambda params, batch: loss_and_grads(
            model, params, batch, loss, n_tasks=3, gradient_accumulation_steps=microbatches
        )
    )


def compute(batch, microbatches=1, balance=0.5, z_loss=0.1):
    model, params = model_and_params()
    return program(model, microbatches, balance, z_loss)(params, batch)


@functools.cache
def alone():
    """Each example in a row of its own."""
    return compute(decoder_batch([[example] for example in EXAMPLES], LENGTH))


def packed():
    return decoder_batch(padded_rows(EXAMPLES), LENGTH)


@pytest.mark.parametrize("microbatches", [1, 2])
def test_packed_rows_and_microbatches_equal_examples_alone(microbatches):
    loss, grads, sums = compute(packed(), microbatches)
    assert_same((loss, grads), alone())
    for name, value in alone()[2].items():
        np.testing.assert_allclose(sums[name], value, rtol=1e-5, err_msg=name)


MESHES = [
    MeshConfig(data=1, expert=4, tensor=2),
    MeshConfig(data=1, fsdp=2, expert=2, sequence=2),
    MeshConfig(data=2, fsdp=2, tensor=2),
]


@pytest.mark.parametrize("mesh_config", MESHES, ids=str)
def test_devices_and_meshes(mesh_config):
    model, params = model_and_params()
    size = int(np.prod(dataclasses.astuple(mesh_config)))
    mesh = make_mesh(mesh_config, jax.devices()[:size])
    with jax.set_mesh(mesh):
        shardings = rules.tree_shardings(mesh, model.logical_axes, params)
        gate = shardings["layers"]["full"]["mlp"]["gate"]["weight"].spec
        assert (mesh_config.expert > 1) == (gate[1] == "expert")
        params = jax.device_put(params, shardings)
        batch = {k: jax.device_put(v, batch_sharding(mesh, v.shape)) for k, v in packed().items()}
        got = program(model, 1, 0.5, 0.1)(params, batch)
    assert_same(got, alone())
    for name, value in alone()[2].items():
        np.testing.assert_allclose(got[2][name], value, rtol=1e-5, err_msg=name)


def test_rows_that_do_not_divide_over_the_devices_with_other_experts():
    """As in generation: every device of the axis has all tokens, and a part of their sums."""
    model, params = model_and_params()
    batch = {name: array[:3] for name, array in packed().items()}
    want = jax.jit(model.hidden)(params, batch)
    mesh = make_mesh(MeshConfig(data=1, expert=2, tensor=2), jax.devices()[:4])
    with jax.set_mesh(mesh):
        sharded = jax.device_put(params, rules.tree_shardings(mesh, model.logical_axes, params))
        got = jax.jit(model.hidden)(sharded, batch)
    np.testing.assert_allclose(got, want, atol=2e-5)


def test_the_balancing_loss_is_that_of_transformers():
    torch = pytest.importorskip("torch")
    mixtral = pytest.importorskip("transformers.models.mixtral.modeling_mixtral")
    model, params = model_and_params()
    batch = decoder_batch([[example] for example in EXAMPLES], LENGTH)
    logits = []
    route = experts.route

    with pytest.MonkeyPatch.context() as patch:

        def spy(x, w, *args, **options):
            jax.debug.callback(lambda z: logits.append(np.array(z)), x @ w, ordered=True)
            return route(x, w, *args, **options)

        patch.setattr(experts, "route", spy)
        _, sums = jax.jit(model.hidden_and_router)(params, batch)
        jax.effects_barrier()
    mask = torch.tensor(batch["segment_ids"] > 0)
    theirs = mixtral.load_balancing_loss_func(
        tuple(map(torch.tensor, logits)), CONFIG.n_experts, CONFIG.experts_per_token, mask
    )
    named = {f"router_{name}": np.asarray(value) for name, value in sums._asdict().items()}
    record = router_metrics(named)
    np.testing.assert_allclose(record["balance"], theirs.item(), rtol=1e-5)
    assert record["dropped"] == 0 and record["max_share"].keys() == {"0", "1"}
    assert 1 / 8 < record["max_share"]["1"] < 1
    assert 0 < record["entropy"]["0"] < np.log(8)
    plain, with_loss = (compute(batch, balance=factor, z_loss=0.0)[0] for factor in (0.0, 0.5))
    np.testing.assert_allclose(with_loss - plain, 0.5 * theirs.item(), rtol=1e-4)


def test_adapters_of_experts_merge_into_their_weights():
    model = Model(CONFIG, lora=LoraConfig(rank=2, targets="mlp"))
    params = random_params(model, std=0.3)
    batch = packed()
    merged = lora.merge(params, model.lora)
    want = jax.jit(build_model(CONFIG).hidden)(merged, batch)
    got = jax.jit(model.hidden)(params, batch)
    is_token = batch["segment_ids"] > 0
    np.testing.assert_allclose(np.asarray(got)[is_token], np.asarray(want)[is_token], atol=2e-5)
    trained, _ = model.split(model.shapes)
    layers = trained["layers"]["full"]
    assert layers["mlp"].keys() == {"gate", "up", "down"}  # Not the router.
    assert layers["shared_expert"].keys() == {"mlp"}  # Not its gate.


def test_the_gradient_for_tpu_is_that_of_each_group_of_rows():
    rng = np.random.default_rng(0)
    sizes = np.array([5, 0, 90, 1], np.int32)  # The last of 128 rows belong to no group.
    arrays = [
        rng.normal(size=shape).astype(np.float32) for shape in ((128, 8), (4, 8, 6), (128, 6))
    ]

    def loss(function, x, w):
        return (function(x, w, sizes)[:96] * arrays[2][:96]).sum()

    got, want = (
        jax.jit(jax.grad(functools.partial(loss, function), (0, 1)))(*arrays[:2])
        for function in (ragged_matmul, jax.lax.ragged_dot)
    )
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "section", "message"),
    [
        (CONFIG, dict(mesh=MeshConfig(expert=3)), "3 does not divide the 8 devices"),
        (
            dataclasses.replace(CONFIG, dense_d_ff=0),
            {},
            "config.model.dense_d_ff: expected a width if expert_layers names dense layers",
        ),
        (
            DecoderConfig(vocab_size=VOCAB, shared_d_ff=8),
            {},
            "config.model.shared_d_ff: 8, but n_experts is 0",
        ),
        (
            dataclasses.replace(CONFIG, n_experts=6),
            dict(mesh=MeshConfig(expert=4)),
            "config.mesh.expert: 4, but the model has 6 experts; expected a divisor",
        ),
        (
            DecoderConfig(vocab_size=VOCAB),
            dict(mesh=MeshConfig(expert=2)),
            "config.mesh.expert: 2, but the model has no experts",
        ),
        (
            DecoderConfig(vocab_size=VOCAB),
            dict(loss=LossConfig(router_balance=0.01)),
            "config.loss.router_balance: 0.01, but the model has no experts; expected 0",
        ),
        (
            CONFIG,
            dict(lora=LoraConfig(rank=2, dora=True)),
            r"config.lora.dora: True, which the adapters of experts \(layers.full.mlp.\w+\) do not",
        ),
        (
            CONFIG,
            dict(lora=LoraConfig(rank=2, rank_pattern=("up=3",))),
            "config.lora.rank_pattern: 3 for layers.full.mlp.up, but all experts' adapters are",
        ),
    ],
)
def test_what_experts_cannot_do_is_refused(model, section, message):
    with pytest.raises(UserError, match=message):
        TrainProgram.from_config(check(Config(model=model, **section)), n_tasks=1, n_steps=1)


def test_flops_count_the_experts_of_a_token_alone():
    n_hidden = 2 * (3 * 24 + 12) + 24  # All three layers together.
    dense = dataclasses.replace(
        CONFIG,
        n_experts=0,
        experts_per_token=0,
        d_ff=n_hidden // 3,
        normalize_expert_weights=False,
        expert_layers="",
        dense_d_ff=0,
        shared_d_ff=0,
    )
    routers_and_gates = 6 * 2 * 16 * (8 + 1)
    want = build_model(dense).flops_per_token([7], [7]) + routers_and_gates
    assert build_model(CONFIG).flops_per_token([7], [7]) == pytest.approx(want)
