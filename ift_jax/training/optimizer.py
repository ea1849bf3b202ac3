"""Optimizers and learning-rate schedules, from optax's parts.

A transformation here gives the *direction*; the step multiplies it by minus the learning
rate of `state["step"]`, so the schedule follows the data even when a step is skipped.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from ift_jax.config.schema import OptimizerConfig

Schedule = Callable[[jax.Array], jax.Array]


def make_schedule(config: OptimizerConfig, n_steps: int) -> Schedule:
    """The learning rate as a float32 function of the step (0 for the first update).

    Warm-up is linear and its first step is not zero: update s of w has the share (s + 1) / w.
    Linear and cosine end at `n_steps`, the updates of the whole run.
    """
    warmup = config.warmup_steps or round(config.warmup_ratio * n_steps)
    peak, last = config.learning_rate, config.final_ratio

    def schedule(step: jax.Array) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        progress = jnp.clip((step - warmup) / max(n_steps - warmup, 1), 0.0, 1.0)
        if config.schedule == "linear":
            share = 1.0 - (1.0 - last) * progress
        elif config.schedule == "cosine":
            share = last + (1.0 - last) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
        elif config.schedule == "rsqrt":
            share = jnp.sqrt(config.rsqrt_offset / jnp.maximum(step, config.rsqrt_offset))
        else:
            share = jnp.float32(1.0)
        return peak * share * jnp.minimum(1.0, (step + 1.0) / max(warmup, 1))

    return schedule


def make_optimizer(config: OptimizerConfig, logical_axes: Any) -> optax.GradientTransformation:
    """The optimizer's direction, before the learning rate.

    Adafactor has T5's settings (Shazeer and Stern 2018; T5X): factored second moments, decay
    1 - t^-0.8, update clipped to RMS 1, scaled by the parameter's RMS (at least 1e-3). Layers
    are stored stacked ("layers" is the first of their `logical_axes`); each is factored, clipped
    and scaled by itself, as if it were not. Muon (Jordan 2024) is for the layers' matrices, whose
    update has the RMS of AdamW's (arXiv:2502.16982: one learning rate for all); the embedding, the
    head, norms and biases have AdamW.
    """
    of_axes = functools.partial(
        jax.tree.map, tree=logical_axes, is_leaf=lambda node: isinstance(node, tuple)
    )
    moment = config.moment_dtype
    if config.name == "adamw":
        direction = optax.scale_by_adam(config.b1, config.b2, config.eps, mu_dtype=moment)
    elif config.name == "lion":
        direction = optax.scale_by_lion(config.b1, config.b2, mu_dtype=moment)
    elif config.name == "sgd":
        direction = optax.trace(config.b1, accumulator_dtype=moment)
    elif config.name == "muon":
        # A stacked layer's matrices are orthogonalised each by itself.
        numbers = contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=2)
        each: Any = functools.partial(jax.tree.map, lambda _: numbers)
        scaled = functools.partial(jax.tree.map, lambda u: 0.2 * max(u.shape[1:]) ** 0.5 * u)
        muon = optax.chain(
            contrib.scale_by_muon(beta=config.b1, mu_dtype=moment, weight_dimension_numbers=each),
            optax.stateless(lambda updates, _: scaled(updates)),
        )
        adam = optax.scale_by_adam(config.b1, config.b2, config.eps, mu_dtype=moment)
        hidden = of_axes(lambda axes: "muon" if axes[0] == "layers" and len(axes) == 3 else "adam")
        direction = optax.partition({"muon": muon, "adam": adam}, hidden)
    else:
        one = optax.chain(
            optax.scale_by_factored_rms(decay_rate=0.8, epsilon=1e-30),
            optax.clip_by_block_rms(1.0),
            optax.scale_by_param_block_rms(1e-3),
        )
        stacked = optax.GradientTransformation(
            jax.vmap(one.init), lambda *arguments: jax.vmap(one.update)(*arguments)
        )
        labels = of_axes(lambda axes: "stacked" if axes[0] == "layers" else "single")
        direction = optax.partition({"stacked": stacked, "single": one}, labels)
    if not config.weight_decay:
        return direction
    # A matrix has two axes besides that of the layers.
    decayed = of_axes(
        lambda axes: config.decay_norms_and_biases or len([a for a in axes if a != "layers"]) > 1
    )
    return optax.chain(direction, optax.add_decayed_weights(config.weight_decay, decayed))
