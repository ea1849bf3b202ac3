"""Models with layers of several kinds: packed equals alone, however a batch is split."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ift_jax.config.checks import check
from ift_jax.config.schema import Config, FormatConfig, LossConfig, MeshConfig, OptimizerConfig
from ift_jax.errors import UserError
from ift_jax.models.attention import gated_delta
from ift_jax.models.model import build_model
from ift_jax.sharding import rules
from ift_jax.sharding.batch_placement import batch_sharding
from ift_jax.sharding.mesh import make_mesh
from ift_jax.training.loss_and_grads import loss_and_grads
from ift_jax.training.optimizer import make_optimizer
from tests.models.architectures import jit
from tests.small_models import ARCHITECTURES, random_params
from tests.training.examples import decoder_batch, make_examples
from tests.training.test_invariance import assert_same

HYBRID = dataclasses.replace(
    ARCHITECTURES["decoder"],
    n_layers=4,  # Two periods.
    attention_gate=True,
    linear_layers="LF",
    linear_key_heads=2,
    linear_value_heads=4,
    linear_key_dim=8,
    linear_value_dim=6,
)
SHARING = dataclasses.replace(  # Gemma 4: two periods, and two that read their keys and values.
    ARCHITECTURES["decoder"],
    n_layers=8,
    sliding_window=5,
    global_every=2,
    global_head_dim=12,
    kv_shared_layers=4,
    double_d_ff_where_shared=True,
    layer_input_dim=8,
    layer_scalar=True,
    value_norm=True,
    qk_norm="head",
    norm_placement="both",
    rope_scaling="proportional",
    rope_proportion=0.5,
)
EACH_HEAD = dataclasses.replace(  # Command R+: layers of one kind, with norms for each head.
    ARCHITECTURES["decoder"],
    norm="layer",
    norm_placement="parallel",
    qk_norm="each_head",
    rope_interleaved=True,
)
BESIDE = dataclasses.replace(  # GPT-NeoX: the same, but a norm for each of the two.
    ARCHITECTURES["decoder"], norm="biased_layer", norm_placement="parallel_norms", mlp_gated=False
)
MODELS = {"linear": HYBRID, "sharing": SHARING, "each_head": EACH_HEAD, "beside": BESIDE}
CHUNK = 8
# Borders before, at and after those of chunks, several in a chunk, and padding at the end.
ROWS = [[7, 1, 1, 7, 8], [8, 8, 5], [20, 3], [24], [1, 1, 1, 1, 3], [9, 6, 2]]
LENGTH = 3 * CHUNK
N_ROWS = 20
each_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(scope="module", autouse=True)
def small_chunks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gated_delta, "CHUNK", CHUNK)
        yield


@functools.cache
def program(name, remat, microbatches):
    model = build_model(dataclasses.replace(MODELS[name], remat=remat))
    return jit(
        lambda params, batch: loss_and_grads(
            model,
            params,
            batch,
            LossConfig(normalization="examples", z_loss=1e-3),
            n_tasks=3,
            gradient_accumulation_steps=microbatches,
            dropout_key=None,
        )
    )


@functools.cache
def params(name):
    # Weights of 0.15 let rounding alone, as between two kinds of remat, reach 6e-6 of a gradient.
    return random_params(build_model(MODELS[name]), std=0.1)


@functools.cache
def examples_of_rows():
    examples = iter(make_examples([n for row in ROWS for n in row], [0] * sum(map(len, ROWS))))
    return [[next(examples) for _ in row] for row in ROWS]


def batch_of(rows):
    """A batch of rows; it has as many as there are examples, so that one program serves all."""
    return decoder_batch(rows + [[]] * (N_ROWS - len(rows)), LENGTH)


@functools.cache
def alone(name):
    """Every example in a row of its own."""
    batch = batch_of([[example] for row in examples_of_rows() for example in row])
    return program(name, "minimal", 2)(params(name), batch)


@each_model
def test_packed_equals_alone(name):
    batch = batch_of(examples_of_rows())
    assert_same(program(name, "minimal", 2)(params(name), batch), alone(name))
    batch["segment_ids"] = (batch["segment_ids"] > 0).astype(np.int32)
    with pytest.raises(AssertionError):  # The comparison sees leaks.
        assert_same(program(name, "minimal", 2)(params(name), batch), alone(name))


# Two key heads do not divide over four tensor shards: each then has all of them.
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("linear", dict(data=2, fsdp=2, tensor=2)),
        ("linear", dict(data=1, tensor=4)),
        ("sharing", dict(data=1, fsdp=2, tensor=2, sequence=2)),
        ("each_head", dict(data=1, fsdp=2, tensor=2, sequence=2)),
    ],
    ids=str,
)
def test_any_mesh(name, sizes):
    model = build_model(MODELS[name])
    mesh_config = MeshConfig(**sizes)
    mesh = make_mesh(mesh_config, jax.devices()[: int(np.prod(list(sizes.values())))])
    host = batch_of(examples_of_rows())
    with jax.set_mesh(mesh):
        shardings = rules.tree_shardings(mesh, model.logical_axes, params(name))
        batch = {k: jax.device_put(v, batch_sharding(mesh, v.shape)) for k, v in host.items()}
        got = program(name, "none", 1)(jax.device_put(params(name), shardings), batch)
    assert_same(got, alone(name))


def test_no_device_holds_the_whole_table_of_the_layers_or_its_gradient():
    model = build_model(SHARING)
    mesh = make_mesh(MeshConfig(data=1, fsdp=8), jax.devices())
    tokens = jax.ShapeDtypeStruct((8, 6), np.int32)

    def total(params, tokens):
        x = jnp.ones((*tokens.shape, SHARING.d_model))
        return jnp.sum(model.module(params).layer_inputs(tokens, x) ** 2)

    with jax.set_mesh(mesh):
        shardings = rules.tree_shardings(mesh, model.logical_axes, model.shapes)
        gradient = jax.jit(
            jax.grad(total),
            in_shardings=(shardings, batch_sharding(mesh, tokens.shape)),
            out_shardings=shardings,
        )
        text = gradient.lower(model.shapes, tokens).compile().as_text()
    rows, columns = model.shapes["layer_inputs"]["table"].shape
    assert f"[{rows},{columns}]" not in text
    assert f"f32[{rows},{columns // 8}]" in text and "all-to-all" in text


def test_the_number_of_a_layer_stays_as_it_is():
    config = OptimizerConfig(weight_decay=0.1, decay_norms_and_biases=True)
    optimizer = make_optimizer(config, build_model(SHARING).logical_axes)
    own, gradients = params("sharing"), alone("sharing")[1]
    updates, _ = jax.jit(optimizer.update)(gradients, optimizer.init(own), own)
    for kind, of_kind in updates["layers"].items():
        assert not np.any(of_kind["scalar"]), kind
        assert np.all(of_kind["mlp_pre_norm"]["scale"]), kind


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adafactor"])
def test_weights_of_a_norm_for_each_head_are_no_matrix(optimizer):
    """They are not decayed, as other norms are not, and Muon does not orthogonalize them."""
    axes, own = build_model(EACH_HEAD).logical_axes, params("each_head")
    gradients = alone("each_head")[1]

    def update(**fields):
        made = make_optimizer(OptimizerConfig(name=optimizer, **fields), axes)
        return jax.jit(made.update)(gradients, made.init(own), own)[0]["layers"]["attention"]

    plain, decayed = update(), update(weight_decay=0.1)
    for name in ("query_norm", "key_norm"):
        np.testing.assert_array_equal(plain[name]["scale"], decayed[name]["scale"])
        if optimizer != "adafactor":  # The first step of Adam is the sign of the gradient.
            sign = np.sign(gradients["layers"]["attention"][name]["scale"])
            np.testing.assert_allclose(plain[name]["scale"], sign, atol=1e-2)
    assert np.any(plain["query"]["weight"] != decayed["query"]["weight"])


def refused(model, **sections):
    with pytest.raises(UserError) as error:
        check(Config(**({"model": model} | sections)))
    return str(error.value)


def test_what_linear_attention_cannot_do_is_refused_by_name():
    mesh = refused(HYBRID, mesh=MeshConfig(sequence=2))
    assert mesh.startswith("config.mesh.sequence: 2, but layers")
    prefix = refused(HYBRID, format=FormatConfig(bidirectional_prefix=True))
    assert prefix.startswith("config.format.bidirectional_prefix: layers with linear attention")
    heads = refused(dataclasses.replace(HYBRID, linear_value_heads=3))
    assert (
        heads == "config.model.linear_value_heads: expected a multiple of linear_key_heads 2; got 3"
    )
    check(Config(model=HYBRID))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("global_head_dim", 7),
        ("global_kv_heads", 3),
        ("linear_layers", "LF"),
        ("n_experts", 2),
        ("kv_shared_layers", 7),  # The first layer is local, and the last one is global.
        ("kv_shared_layers", 8),
    ],
)
def test_what_layers_that_share_cannot_do_is_refused_by_name(field, value):
    also = {"experts_per_token": 1} if field == "n_experts" else {}
    message = refused(dataclasses.replace(SHARING, **{field: value}, **also))
    assert message.startswith(f"config.model.{field}: ")
    check(Config(model=SHARING))
