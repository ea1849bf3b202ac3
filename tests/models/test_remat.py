"""Rematerialization policies: the same gradients, and exactly the residuals that they promise."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.ad_checkpoint import saved_residuals  # The public function only prints.

from ift_jax.models.remat import CHECKPOINT_POLICIES, chosen_policy
from ift_jax.sharding import rules
from tests.models.architectures import LOCAL, each_architecture, full_batch, jit, make


def loss_and_params(config, remat, **fields):
    model, params, _ = make(dataclasses.replace(config, remat=remat, **fields))
    batch = full_batch(config)

    def loss(params):
        return jnp.square(model.logits(params, model.hidden(params, batch))).sum()

    return loss, params


@each_architecture
def test_policies_give_the_same_gradients(config):
    policies = list(CHECKPOINT_POLICIES) if config is LOCAL else ["minimal", "full"]
    results = {}
    for remat in ("none", *policies):
        loss, params = loss_and_params(config, remat)
        results[remat] = jax.device_get(jit(jax.value_and_grad(loss))(params))
    wanted = jax.tree.leaves(results["none"])
    for remat in policies:
        for want, got in zip(wanted, jax.tree.leaves(results[remat]), strict=True):
            np.testing.assert_allclose(want, got, rtol=1e-6, atol=1e-6 * np.abs(want).max())


def residual_sizes(attention):
    """What each policy keeps on the device and on the host, per layer and position.

    It is counted in the values that JAX keeps of the layers (arrays with an axis of layers) for the
    backward pass.
    """
    device, host = {}, {}
    n_positions = full_batch(LOCAL)["tokens"].size
    for remat in ("auto", "none", *CHECKPOINT_POLICIES):
        loss, params = loss_and_params(LOCAL, remat, attention=attention)
        kept = [
            aval
            for aval, source in saved_residuals(loss, params)
            if "argument" not in source and aval.ndim > 2 and aval.shape[0] == LOCAL.n_layers
        ]
        on_host = [aval for aval in kept if "<host>" in str(aval)]
        host[remat] = sum(aval.size for aval in on_host) / (LOCAL.n_layers * n_positions)
        everything = sum(aval.size for aval in kept) / (LOCAL.n_layers * n_positions)
        device[remat] = everything - host[remat]
    return device, host


@pytest.mark.parametrize("attention", ["xla", "tiled", "splash", "triton"])
def test_policies_keep_what_they_promise(attention):
    device, host = residual_sizes(attention)
    c = LOCAL
    length = full_batch(c)["tokens"].shape[1]
    q_size = c.n_heads * c.head_dim
    kv_size = c.n_kv_heads * c.head_dim
    # Kernels and tiles keep their output and one sum per query, with the length padded to a block;
    # triton pads heads to 16.
    blocks = {"tiled": (length, c.head_dim), "splash": (128, c.head_dim), "triton": (64, 16)}
    block, width = blocks.get(attention, (0, 0))
    attention_size = c.n_heads * (width + 1) * block / length or q_size
    assert device["full"] == c.d_model and not host["full"]
    assert device["offload"] == 0 and host["offload"] == c.d_model
    assert device["save_attention"] == pytest.approx(c.d_model + attention_size)
    projections = q_size + 2 * kv_size + 2 * c.d_ff + 2 * c.d_model
    assert device["dots"] == c.d_model + projections
    assert device["minimal"] == pytest.approx(device["dots"] + attention_size)
    assert device["none"] > device["minimal"]
    assert device["auto"] == device["minimal"]  # There is only a CPU here.


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_an_accelerator_computes_nothing_again_unless_it_is_asked_to(monkeypatch, platform):
    monkeypatch.setattr(rules, "platform", lambda: platform)
    assert (chosen_policy("auto"), chosen_policy("full")) == ("none", "full")
