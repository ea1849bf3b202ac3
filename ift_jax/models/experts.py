"""A mixture of experts in place of a feed-forward layer (Shazeer et al. 2017, arXiv:1701.06538).

No token is ever dropped: each expert multiplies as many rows as were routed to it
(`ift_jax.models.grouped_matmul`). On a mesh everything happens on each device's own tokens, inside
`jax.shard_map`. Where experts are sharded (mesh axis `expert`), the devices of that axis gather
their tokens, each applies its experts to all of them, and the sums are scattered back. An
all-to-all would send a token once for each of its K experts elsewhere; with no more devices along
the axis than K, that is no less, and it would need a bound on the tokens that a device receives.

Shape suffixes: B rows, L positions, N tokens, D model width, E experts, F hidden units of an
expert, S slots, K experts of a token.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx, traverse_util
from jax.sharding import PartitionSpec as P

from ift_jax.models.grouped_matmul import Slots, from_slots, grouped_matmul, make_slots, to_slots
from ift_jax.models.layers import ACTIVATIONS, Keys, init_weight
from ift_jax.models.router import RouterSums, route
from ift_jax.sharding.rules import partition_spec

# Axes that no mesh axis shards: every device routes its own tokens with the whole weight.
ROUTER_AXES = ("router_in", "router")


class Router(nnx.Module):
    """The weight of the router, which stays float32 everywhere."""

    def __init__(self, d_model: int, n_experts: int, *, keys: Keys, bias: bool):
        self.weight = init_weight(keys, (d_model, n_experts), ROUTER_AXES, d_model**-0.5)
        self.bias = nnx.Param(jnp.zeros((n_experts,)), axes=ROUTER_AXES[1:]) if bias else None


class ExpertLinear(nnx.Module):
    """A projection of every expert: a weight ExDxF, and a bias ExF if there is one."""

    def __init__(
        self,
        n_experts: int,
        d_in: int,
        d_out: int,
        axes: tuple[str, str],
        *,
        keys: Keys,
        bias: bool,
    ):
        """Initialize the weight as that of a `Linear`, and the bias at zero."""
        sizes = (n_experts, d_in, d_out)
        self.weight = init_weight(keys, sizes, ("expert", *axes), d_in**-0.5)
        # The bias of the output is added once, whatever shards the hidden units.
        bias_axes = ("expert", "norm" if axes[1] == "embed" else axes[1])
        self.bias = nnx.Param(jnp.zeros((n_experts, d_out)), axes=bias_axes) if bias else None
        # `ift_jax.models.lora` attaches adapters, one for each expert.
        self.lora_a: Any = nnx.data(None)
        self.lora_b: Any = nnx.data(None)
        self.lora_scale = 0.0


class _Options(NamedTuple):
    """What each device must know of the whole layer."""

    n_experts: int
    experts_per_token: int
    normalize: bool
    activation: str
    limit: float
    slope: float
    lora_scale: float = 0.0


class Experts(nnx.Module):
    """The weighted sum of `down(activation(gate(x)) * up(x))` over the experts of each token."""

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        activation: str,
        *,
        n_experts: int,
        experts_per_token: int,
        normalize: bool,
        limit: float,
        slope: float,
        keys: Keys,
        bias: bool = False,
    ):
        """Initialize the router and the experts.

        Args:
            d_model: D.
            d_ff: F.
            activation: A key of `ACTIVATIONS`, or "clamped_swish".
            n_experts: E.
            experts_per_token: K.
            normalize: As for `route`.
            limit: Of "clamped_swish".
            slope: Of "clamped_swish".
            keys: Random keys of the weights.
            bias: Whether the router and the experts' projections have biases.
        """
        self.options = _Options(n_experts, experts_per_token, normalize, activation, limit, slope)
        self.router = Router(d_model, n_experts, keys=keys, bias=bias)
        up_axes = ("embed", "mlp")
        make = functools.partial(ExpertLinear, n_experts, keys=keys, bias=bias)
        self.gate = make(d_model, d_ff, up_axes)
        self.up = make(d_model, d_ff, up_axes)
        self.down = make(d_ff, d_model, up_axes[::-1])

    def __call__(self, x_BxLxD: jax.Array, is_token_BxL: jax.Array) -> tuple[jax.Array, RouterSums]:
        """Apply the experts: BxLxD, zeros in padding, and the router's sums over all tokens."""
        state = nnx.state(self, nnx.Param)
        params = nnx.to_pure_dict(state)
        scales = (self.gate.lora_scale, self.up.lora_scale, self.down.lora_scale)
        options = self.options._replace(lora_scale=max(scales))  # Without an adapter it is 0.
        mesh = jax.sharding.get_abstract_mesh()
        if mesh.empty or mesh.size == 1:
            return _apply(options, _NO_MESH, params, x_BxLxD, is_token_BxL)
        sizes = dict(mesh.shape)
        specs = traverse_util.unflatten_dict(
            {
                path: partition_spec(param.get_metadata()["axes"], param.shape, sizes)
                for path, param in nnx.to_flat_state(state)
            }
        )
        x_spec = partition_spec(("batch", "length", None), x_BxLxD.shape, sizes)
        run = jax.shard_map(
            functools.partial(_apply, options, _Sharding.of(specs, x_spec)),
            in_specs=(specs, x_spec, P(*x_spec[:2])),
            out_specs=(x_spec, P()),
            check_vma=False,
        )
        return run(params, x_BxLxD, is_token_BxL)


# --- On each device ---


class _Sharding(NamedTuple):
    """By which mesh axes the arguments are sharded; all empty without a mesh."""

    tokens: tuple[str, ...]  # The rows and positions.
    experts: tuple[str, ...]
    hidden: tuple[str, ...]  # The experts' hidden units.
    width: tuple[str, ...]  # The width of the model, in weights alone.

    @classmethod
    def of(cls, specs: Any, x_spec: P) -> "_Sharding":
        experts, width, hidden = map(_mesh_axes, specs["gate"]["weight"])
        return cls(_mesh_axes(x_spec[0]) + _mesh_axes(x_spec[1]), experts, hidden, width)

    @property
    def shared(self) -> tuple[str, ...]:
        """Axes whose devices have other experts for the same rows, which they gather."""
        return tuple(axis for axis in self.experts if axis in self.tokens)

    @property
    def partial(self) -> tuple[str, ...]:
        """Axes whose devices have a part of each token's sum."""
        return self.hidden + tuple(axis for axis in self.experts if axis not in self.tokens)


def _mesh_axes(entry: Any) -> tuple[str, ...]:
    """The mesh axes of one entry of a partition."""
    if entry is None:
        return ()
    return entry if isinstance(entry, tuple) else (entry,)


_NO_MESH = _Sharding((), (), (), ())


def _apply(
    options: _Options,
    sharding: _Sharding,
    params: Any,
    x_BxLxD: jax.Array,
    is_token_BxL: jax.Array,
) -> tuple[jax.Array, RouterSums]:
    """Route and compute one device's tokens; the sums are those of all devices."""
    x_NxD = x_BxLxD.reshape(-1, x_BxLxD.shape[-1])
    routing, sums = route(
        x_NxD,
        params["router"]["weight"],
        params["router"].get("bias"),
        is_token_BxL.reshape(-1),
        experts_per_token=options.experts_per_token,
        normalize=options.normalize,
    )
    gathered_NxD, routing = _gather((x_NxD, routing), sharding.shared)
    own_expert_NxK = _own_experts(options, sharding, params, routing.expert_NxK)
    n_own = params["gate"]["weight"].shape[0]
    slots = make_slots(own_expert_NxK.reshape(-1), n_own)
    y_AxD = from_slots(_run_experts(options, sharding, params, gathered_NxD, slots), slots)
    y_NxKxD = y_AxD.reshape(*routing.weight_NxK.shape, -1)
    weight_NxK = routing.weight_NxK.astype(x_NxD.dtype)
    y_NxD = jnp.einsum("nk,nkd->nd", weight_NxK, y_NxKxD, preferred_element_type=jnp.float32)
    y_NxD = y_NxD.astype(x_NxD.dtype)
    for axis in sharding.shared:
        y_NxD = jax.lax.psum_scatter(y_NxD, axis, tiled=True)
    if sharding.partial:
        y_NxD = jax.lax.psum(y_NxD, sharding.partial)
    n_computed = (slots.assignment_S < slots.slot_A.shape[0]).sum().astype(jnp.float32)
    return y_NxD.reshape(x_BxLxD.shape), _whole_sums(sharding, sums, n_computed)


def _own_experts(
    options: _Options, sharding: _Sharding, params: Any, expert_NxK: jax.Array
) -> jax.Array:
    """Number this device's experts from 0; those of other devices get the number after the last."""
    n_own = params["gate"]["weight"].shape[0]
    if n_own == options.n_experts:
        return expert_NxK
    own_NxK = expert_NxK - n_own * jax.lax.axis_index(sharding.experts)
    return jnp.where((own_NxK >= 0) & (own_NxK < n_own), own_NxK, n_own)


def _run_experts(
    options: _Options, sharding: _Sharding, params: Any, x_NxD: jax.Array, slots: Slots
) -> jax.Array:
    """The output of each slot's expert for its token: SxD, a part of the sum over hidden units."""
    x_SxD = to_slots(x_NxD, slots)
    apply = functools.partial(
        _apply_linear, slots=slots, width=sharding.width, lora_scale=options.lora_scale
    )
    gate_SxF = apply(params["gate"], x_SxD, width_axis=1)
    up_SxF = apply(params["up"], x_SxD, width_axis=1)
    h_SxF = _gated(options, gate_SxF, up_SxF)
    n_parts = math.prod(jax.lax.axis_size(axis) for axis in sharding.hidden)
    return apply(params["down"], h_SxF, width_axis=2, n_parts=n_parts)


def _gated(options: _Options, gate: jax.Array, up: jax.Array) -> jax.Array:
    """The hidden units."""
    if options.activation != "clamped_swish":
        return ACTIVATIONS[options.activation](gate) * up
    gate = jnp.minimum(gate, options.limit)
    up = jnp.clip(up, -options.limit, options.limit)
    return gate * jax.nn.sigmoid(options.slope * gate) * (up + 1)


def _apply_linear(
    linear: Any,
    x_SxD: jax.Array,
    slots: Slots,
    width: tuple[str, ...],
    lora_scale: float,
    width_axis: int,
    n_parts: int = 1,
) -> jax.Array:
    """Multiply by the weights of a projection, gathered over fsdp; add adapter and bias.

    Args:
        linear: The projection's parameters.
        x_SxD: The rows.
        slots: Where they are.
        width: The mesh axes that shard the width of the model.
        lora_scale: The factor of the adapter's product.
        width_axis: The axis of the weight that is the width of the model.
        n_parts: How many devices' results are added up; each adds its part of the bias.
    """

    def whole(name: str) -> jax.Array:
        weight = linear[name].astype(x_SxD.dtype)
        for axis in reversed(width):  # On a large torus along its lines first: `sharding.fsdp`.
            weight = jax.lax.all_gather(weight, axis, axis=width_axis, tiled=True)
        return weight

    y_SxF = grouped_matmul(x_SxD, whole("weight"), slots)
    if "lora_a" in linear:
        # Only one of the two has the width of the model.
        a = whole("lora_a") if width_axis == 1 else linear["lora_a"]
        b = whole("lora_b") if width_axis == 2 else linear["lora_b"]
        y_SxF += lora_scale * grouped_matmul(grouped_matmul(x_SxD, a, slots), b, slots)
    if "bias" in linear:
        y_SxF += (linear["bias"].astype(x_SxD.dtype) / n_parts)[slots.group_S]
    return y_SxF


def _gather(tree: Any, axes: tuple[str, ...]) -> Any:
    """Gather the tokens of all devices along these axes."""

    def gather(array: jax.Array) -> jax.Array:
        for axis in reversed(axes):
            array = jax.lax.all_gather(array, axis, tiled=True)
        return array

    return jax.tree.map(gather, tree)


def _whole_sums(sharding: _Sharding, sums: RouterSums, n_computed: jax.Array) -> RouterSums:
    """The sums over the tokens of all devices, with the number of experts that did not compute."""
    if sharding.tokens:
        sums = jax.lax.psum(sums, sharding.tokens)
    # Each device counts its own experts, for the tokens that it gathered.
    counting = tuple(dict.fromkeys(sharding.tokens + sharding.experts))
    if counting:
        n_computed = jax.lax.psum(n_computed, counting)
    return sums._replace(dropped=sums.load_E.sum() - n_computed)
