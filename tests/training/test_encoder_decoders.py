"""umT5 and T5Gemma: packed equals alone in loss and gradient, however a batch is split."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from ift_jax.config.schema import Config, LoraConfig, LossConfig, MeshConfig
from ift_jax.models.model import trained_model
from ift_jax.sharding import rules
from ift_jax.sharding.batch_placement import batch_sharding
from ift_jax.sharding.mesh import make_mesh
from ift_jax.training.loss_and_grads import loss_and_grads
from tests.models.architectures import jit
from tests.small_models import ARCHITECTURES, random_params
from tests.training.examples import encoder_decoder_batch, make_examples
from tests.training.test_invariance import assert_same, first_fit

T5 = ARCHITECTURES["encoder_decoder"]
KINDS = {
    "umt5": dataclasses.replace(T5, bias_per_layer=True, activation="gated_silu"),
    "t5gemma": dataclasses.replace(
        T5,
        block="gemma",
        n_kv_heads=2,
        encoder_d_model=24,
        encoder_n_heads=2,
        encoder_embedding=True,
        decoder_start_id=2,
        attention_softcap=3.0,
        final_softcap=4.0,
        sliding_window=3,
        global_every=2,
    ),
    "t5gemma2": dataclasses.replace(
        T5,
        block="gemma",
        n_kv_heads=2,
        decoder_start_id=2,
        tied_embedding=True,
        merged_attention=True,
        image_end_id=4,  # Some inputs have it.
        qk_norm="head",
        rope_local_theta=100.0,
        sliding_window=4,
        global_every=2,
    ),
}
# Longer than the windows, single tokens, and inputs of length zero.
LENGTHS = [16, 4, 1, 7, 2, 7, 1, 11, 7, 4]
ENCODER_LENGTHS = [16, 0, 4, 9, 7, 5, 0, 5, 2, 1]
LENGTH = 16
N_ROWS = 12  # Every batch has as many, so that one program serves all.


@functools.cache
def model_of(kind, rank):
    return trained_model(Config(model=KINDS[kind], lora=LoraConfig(rank=rank)))


@functools.cache
def program(kind, rank, microbatches=1):
    model = model_of(kind, rank)

    def compute(params, batch):
        trained, frozen = model.split(params)
        return loss_and_grads(
            model,
            trained,
            batch,
            LossConfig(normalization="examples", z_loss=1e-3),
            n_tasks=3,
            gradient_accumulation_steps=microbatches,
            frozen=frozen,
        )

    return jit(compute)


@pytest.mark.parametrize(("kind", "rank"), [("umt5", 0), ("t5gemma", 2), ("t5gemma2", 0)])
def test_packed_equals_alone_on_any_mesh_and_in_microbatches(kind, rank):
    model = model_of(kind, rank)
    params = random_params(model, std=0.1)
    if model.config.block == "gemma":
        # It adds 1 to the weights of norms. Larger ones make scores so steep that rounding alone
        # reaches 3e-5 of a gradient.
        params = jax.tree.map(
            lambda leaf, axes: leaf - (axes[-1] == "norm"), params, model.logical_axes
        )
    examples = make_examples(LENGTHS, ENCODER_LENGTHS)
    rows = first_fit(examples, LENGTH)
    assert max(map(len, rows)) > 2
    alone, packed = (
        encoder_decoder_batch(each + [[]] * (N_ROWS - len(each)), LENGTH)
        for each in ([[example] for example in examples], rows)
    )
    truth = jax.device_get(program(kind, rank)(params, alone))
    gradients = jax.tree.leaves(truth[1])
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)
    assert_same(program(kind, rank)(params, packed), truth, tolerance=2e-5)
    leaky = packed | {k: np.minimum(packed[k], 1) for k in packed if "segment_ids" in k}
    with pytest.raises(AssertionError):
        assert_same(program(kind, rank)(params, leaky), truth, tolerance=1e-3)
    mesh = make_mesh(MeshConfig(data=1, fsdp=2, tensor=2, sequence=2))
    with jax.set_mesh(mesh):
        shardings = rules.tree_shardings(mesh, model.logical_axes, model.shapes)
        placed = {k: jax.device_put(v, batch_sharding(mesh, v.shape)) for k, v in packed.items()}
        got = program(kind, rank, 3)(jax.device_put(params, shardings), placed)
    assert_same(jax.device_get(got), truth, tolerance=2e-5)
