"""Optimizers and learning-rate schedules, built from optax's parts.

An optimizer here gives the *direction* of an update. The train step multiplies it by minus the
learning rate at `state["step"]`, so the schedule follows the data even when a step is skipped.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from ift_jax.config.schema import OptimizerConfig
from ift_jax.sharding.rules import STACK_AXES

LearningRateSchedule = Callable[[jax.Array], jax.Array]


def make_learning_rate(config: OptimizerConfig, n_steps: int) -> LearningRateSchedule:
    """Make the learning-rate schedule: warm-up, then the decay that `config.schedule` names.

    Warm-up is linear over w steps, and step s (from 0) is multiplied by (s + 1) / w, so the first
    update is not zero. After it, the learning rate is the peak `config.learning_rate` times:

    * "constant": 1;
    * "linear": from 1 to `config.final_ratio`, in a straight line to the end of the run;
    * "cosine": from 1 to `config.final_ratio`, along half a cosine to the end of the run;
    * "rsqrt": sqrt(o / max(step, o)) with o = `config.rsqrt_offset`, as in T5;
    * "wsd": 1, and in the last `config.decay_steps` steps from 1 to `config.final_ratio`, as
      `config.decay_shape` says. A decay that is longer than what the warm-up leaves begins where
      the warm-up ends.

    Args:
        config: The config's section `optimizer`.
        n_steps: The number of updates in the whole run; "linear", "cosine" and "wsd" end there.

    Returns:
        A function from a step (0 for the first update) to a float32 learning rate.
    """
    warmup_steps = config.warmup_steps or round(config.warmup_ratio * n_steps)
    peak = config.learning_rate
    final = config.final_ratio
    shape = config.schedule
    decay_start = warmup_steps
    if config.schedule == "wsd":
        shape = config.decay_shape
        decay_steps = config.decay_steps or round(config.decay_ratio * n_steps)
        decay_start = max(n_steps - decay_steps, warmup_steps)

    def learning_rate(step: jax.Array) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        progress = jnp.clip((step - decay_start) / max(n_steps - decay_start, 1), 0.0, 1.0)
        if shape == "linear":
            ratio = 1.0 - (1.0 - final) * progress
        elif shape == "cosine":
            ratio = final + (1.0 - final) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
        elif shape == "1-sqrt":
            ratio = 1.0 - (1.0 - final) * jnp.sqrt(progress)
        elif shape == "rsqrt":
            ratio = jnp.sqrt(config.rsqrt_offset / jnp.maximum(step, config.rsqrt_offset))
        else:
            ratio = jnp.float32(1.0)
        return peak * ratio * jnp.minimum(1.0, (step + 1.0) / max(warmup_steps, 1))

    return learning_rate


def make_optimizer(config: OptimizerConfig, logical_axes: Any) -> optax.GradientTransformation:
    """Make the optimizer: the direction of an update, before the learning rate.

    Args:
        config: The config's section `optimizer`.
        logical_axes: A tree like the trained parameters, a tuple of axis names at each leaf;
            "layers" comes first where layers are stacked.

    Returns:
        The transformation, with decoupled weight decay added to the direction.
    """
    moment_dtype = config.moment_dtype
    if config.name == "adamw":
        direction = _adam(config)
    elif config.name == "lion":
        direction = optax.scale_by_lion(config.b1, config.b2, mu_dtype=moment_dtype)
    elif config.name == "sgd":
        direction = optax.trace(config.b1, accumulator_dtype=moment_dtype)
    elif config.name == "muon":
        direction = _muon(config, logical_axes)
    else:
        direction = _adafactor(logical_axes)
    if not config.weight_decay:
        return direction

    def is_decayed(axes: tuple[str, ...]) -> bool:
        if "constant" in axes:  # It has no gradient; with decay it would change all the same.
            return False
        n_own_axes = len([axis for axis in axes if axis not in STACK_AXES])
        return config.decay_norms_and_biases or n_own_axes > 1

    decayed = _map_axes(is_decayed, logical_axes)
    return optax.chain(direction, optax.add_decayed_weights(config.weight_decay, decayed))


def _map_axes(function: Callable[[tuple[str, ...]], Any], logical_axes: Any) -> Any:
    """Map a function over a tree whose leaves are tuples of axis names."""
    return jax.tree.map(function, logical_axes, is_leaf=lambda node: isinstance(node, tuple))


def _adam(config: OptimizerConfig) -> optax.GradientTransformation:
    return optax.scale_by_adam(config.b1, config.b2, config.eps, mu_dtype=config.moment_dtype)


def _muon(config: OptimizerConfig, logical_axes: Any) -> optax.GradientTransformation:
    """Muon (Jordan 2024) for the matrices of the layers, AdamW for everything else.

    Each matrix of a stack, and of each expert, is orthogonalized separately. Updates are scaled to
    the RMS of AdamW's (arXiv:2502.16982), so that one learning rate suits both.
    """

    def stacked_matrix(param: Any) -> Any:
        return contrib.MuonDimensionNumbers(param.ndim - 2, param.ndim - 1)

    def dimension_numbers(params: Any) -> Any:
        return jax.tree.map(stacked_matrix, params)

    def scale_to_adamw(updates: Any, params: Any) -> Any:
        return jax.tree.map(lambda u: 0.2 * max(u.shape[-2:]) ** 0.5 * u, updates)

    orthogonalize: Any = contrib.scale_by_muon(
        beta=config.b1, mu_dtype=config.moment_dtype, weight_dimension_numbers=dimension_numbers
    )
    muon = optax.chain(orthogonalize, optax.stateless(scale_to_adamw))

    def label(axes: tuple[str, ...]) -> str:
        n_own_axes = len([axis for axis in axes if axis not in STACK_AXES])
        is_matrix = axes[0] == "layers" and n_own_axes == 2 and "conv" not in axes
        return "muon" if is_matrix else "adam"

    labels = _map_axes(label, logical_axes)
    return optax.partition({"muon": muon, "adam": _adam(config)}, labels)


def _adafactor(logical_axes: Any) -> optax.GradientTransformation:
    """Adafactor with T5's settings (Shazeer and Stern 2018; T5X).

    Second moments are factored and decay by 1 - t^-0.8; an update is clipped to RMS 1 and scaled
    by the parameter's RMS, but at least 1e-3. Each layer of a stack is factored, clipped and
    scaled separately, as if the layers were not stacked.
    """
    single = optax.chain(
        optax.scale_by_factored_rms(decay_rate=0.8, epsilon=1e-30),
        optax.clip_by_block_rms(1.0),
        optax.scale_by_param_block_rms(1e-3),
    )

    def update_stacked(*arguments: Any) -> Any:
        return jax.vmap(single.update)(*arguments)

    one_depth = optax.GradientTransformation(jax.vmap(single.init), update_stacked)

    def of_every_depth(params: Any) -> optax.GradientTransformation:
        depths = jax.tree.map(lambda param: str(param.shape[0]), params)
        names = set(jax.tree.leaves(depths))
        if len(names) < 2:
            return one_depth
        # Stacks of several depths, as ByT5's encoder and decoder are, have a step counter each.
        return optax.partition(dict.fromkeys(names, one_depth), depths)

    stacked = optax.GradientTransformation(
        lambda params: of_every_depth(params).init(params),
        lambda updates, state, params=None: of_every_depth(updates).update(updates, state, params),
    )

    def label(axes: tuple[str, ...]) -> str:
        return "stacked" if axes[0] == "layers" else "single"

    labels = _map_axes(label, logical_axes)
    return optax.partition({"stacked": stacked, "single": single}, labels)
