"""Products of rows with the weight of the group that each row belongs to, without dropping any.

Rows are the (token, expert) assignments of a mixture of experts. They are sorted by group into
slots; the slots of a group are consecutive. On TPU and GPU `jax.lax.ragged_dot` multiplies them.
For the weights' gradient XLA for TPU multiplies all rows for each group; there JAX's Pallas kernel
(megablox) takes its place, which reads the rows of each group alone. On CPU XLA expands
`ragged_dot` to a product of every row with every weight: for 2,048 tokens, 8 of 64 experts it took
100 times as long as one product of as many rows (1.4 s against 14 ms, on two cores). There each
group starts at a multiple of a block's rows, and a scan multiplies block by block.

Shape suffixes: A assignments, S slots, N tokens, K assignments of a token, E groups, D the weight's
input, F its output, M rows of a block.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ift_jax.sharding import rules

# Rows of a block on CPU: of about the size of a group, within these bounds.
_SMALLEST_BLOCK = 8
_LARGEST_BLOCK = 128
# The kernel of the weights' gradient reads tiles of as many slots, and writes tiles of a weight.
_SLOT_TILES = (512, 128)
_WEIGHT_TILE = 512


class Slots(NamedTuple):
    """Where each assignment's row is."""

    slot_A: jax.Array  # int32: the slot of each assignment; S if it belongs to no group.
    assignment_S: jax.Array  # int32: the assignment in each slot; A if it is empty.
    group_S: jax.Array  # int32: the group of each slot; E - 1 behind the last group.
    sizes_E: jax.Array  # int32: the slots of each group, empty ones among them.


def make_slots(group_A: jax.Array, n_groups: int) -> Slots:
    """Sort assignments by group.

    Args:
        group_A: int32; the group of each assignment, `n_groups` for those that have none.
        n_groups: E.
    """
    A = group_A.shape[0]
    M = _block_rows(A, n_groups)
    # At most one block of each group that has rows is not full.
    S = M * (A // M + min(n_groups, A))
    if M == 1:
        S = -(-A // _SLOT_TILES[-1]) * _SLOT_TILES[-1]
    order_A = jnp.argsort(group_A, stable=True).astype(jnp.int32)
    sorted_group_A = group_A[order_A]
    counts_E = jnp.bincount(group_A, length=n_groups).astype(jnp.int32)
    sizes_E = -(-counts_E // M) * M
    # Groups begin at a multiple of M; what has no group would begin behind all slots.
    first_row = jnp.cumsum(counts_E) - counts_E
    first_slot = jnp.cumsum(sizes_E) - sizes_E
    has_group_A = sorted_group_A < n_groups
    known_group_A = jnp.minimum(sorted_group_A, n_groups - 1)
    rank_A = jnp.arange(A, dtype=jnp.int32) - first_row[known_group_A]
    sorted_slot_A = jnp.where(has_group_A, first_slot[known_group_A] + rank_A, S)
    slot_A = jnp.zeros(A, jnp.int32).at[order_A].set(sorted_slot_A, unique_indices=True)
    assignment_S = jnp.full(S, A, jnp.int32).at[sorted_slot_A].set(order_A, mode="drop")
    ends_E = jnp.cumsum(sizes_E)
    group_S = jnp.searchsorted(ends_E, jnp.arange(S, dtype=jnp.int32), side="right")
    return Slots(
        slot_A, assignment_S, jnp.minimum(group_S, n_groups - 1).astype(jnp.int32), sizes_E
    )


def _block_rows(n_assignments: int, n_groups: int) -> int:
    """M, the rows of a block; 1 where `jax.lax.ragged_dot` needs no blocks."""
    if rules.platform() != "cpu":
        return 1
    size_of_group = max(n_assignments // n_groups, 1)
    return min(max(1 << (size_of_group.bit_length() - 1), _SMALLEST_BLOCK), _LARGEST_BLOCK)


# --- Between tokens and slots ---
#
# The gradient of a gather is a scatter with addition, which is slow on TPU. Here each slot has at
# most one row, so that the gradients of both functions are gathers too.


@jax.custom_vjp
def to_slots(x_NxD: jax.Array, slots: Slots) -> jax.Array:
    """Copy each token's row to the slots of its assignments: SxD, zeros in empty slots.

    Token n has the assignments n * K to n * K + K - 1.
    """
    K = slots.slot_A.shape[0] // x_NxD.shape[0]
    return x_NxD.at[slots.assignment_S // K].get(mode="fill", fill_value=0)


def _to_slots_forward(x_NxD: jax.Array, slots: Slots) -> tuple[jax.Array, Any]:
    return to_slots(x_NxD, slots), (slots, x_NxD.shape[0])


def _to_slots_backward(residuals: Any, dy_SxD: jax.Array) -> tuple[jax.Array, None]:
    slots, n_tokens = residuals
    dy_AxD = dy_SxD.at[slots.slot_A].get(mode="fill", fill_value=0)
    return dy_AxD.reshape(n_tokens, -1, dy_SxD.shape[1]).sum(axis=1), None


to_slots.defvjp(_to_slots_forward, _to_slots_backward)


@jax.custom_vjp
def from_slots(y_SxD: jax.Array, slots: Slots) -> jax.Array:
    """Return the row of each assignment, AxD, zeros for those that belong to no group."""
    return y_SxD.at[slots.slot_A].get(mode="fill", fill_value=0)


def _from_slots_forward(y_SxD: jax.Array, slots: Slots) -> tuple[jax.Array, Slots]:
    return from_slots(y_SxD, slots), slots


def _from_slots_backward(slots: Slots, dy_AxD: jax.Array) -> tuple[jax.Array, None]:
    return dy_AxD.at[slots.assignment_S].get(mode="fill", fill_value=0), None


from_slots.defvjp(_from_slots_forward, _from_slots_backward)


# --- Products ---


def grouped_matmul(x_SxD: jax.Array, w_ExDxF: jax.Array, slots: Slots) -> jax.Array:
    """Multiply each slot's row by the weight of its group: SxF, in the dtype of `x`.

    Slots behind the last group must hold zeros, and what they give is not defined.
    """
    w_ExDxF = w_ExDxF.astype(x_SxD.dtype)
    n_assignments = slots.slot_A.shape[0]
    M = _block_rows(n_assignments, w_ExDxF.shape[0])
    if rules.platform() == "tpu":
        return ragged_matmul(x_SxD, w_ExDxF, slots.sizes_E)
    if M == 1:
        return jax.lax.ragged_dot(x_SxD, w_ExDxF, slots.sizes_E)
    x_blocks = x_SxD.reshape(-1, M, x_SxD.shape[1])
    y_blocks = _block_matmul(x_blocks, w_ExDxF, slots.group_S[::M])
    return y_blocks.reshape(x_SxD.shape[0], w_ExDxF.shape[2])


@jax.custom_vjp
def ragged_matmul(x_SxD: jax.Array, w_ExDxF: jax.Array, sizes_E: jax.Array) -> jax.Array:
    """`jax.lax.ragged_dot` with a gradient for TPU, which is interpreted elsewhere: SxF."""
    return jax.lax.ragged_dot(x_SxD, w_ExDxF, sizes_E)


def _ragged_forward(x: jax.Array, w: jax.Array, sizes_E: jax.Array) -> tuple[jax.Array, Any]:
    return ragged_matmul(x, w, sizes_E), (x, w, sizes_E)


def _ragged_backward(residuals: Any, dy_SxF: jax.Array) -> tuple[jax.Array, jax.Array, None]:
    # Imported here: other platforms need no Pallas.
    from jax.experimental.pallas.ops.tpu.megablox.gmm import tgmm

    x_SxD, w_ExDxF, sizes_E = residuals
    dx_SxD = jax.lax.ragged_dot(dy_SxF, w_ExDxF.swapaxes(1, 2), sizes_E)
    S, D = x_SxD.shape
    slot_tile = next(tile for tile in _SLOT_TILES if S % tile == 0)
    dw_ExDxF = tgmm(
        x_SxD.T,
        dy_SxF,
        sizes_E,
        w_ExDxF.dtype,
        (slot_tile, min(_WEIGHT_TILE, D), min(_WEIGHT_TILE, dy_SxF.shape[1])),
        interpret=rules.platform() != "tpu",
    )
    return dx_SxD, dw_ExDxF, None


ragged_matmul.defvjp(_ragged_forward, _ragged_backward)


@jax.custom_vjp
def _block_matmul(x_PxMxD: jax.Array, w_ExDxF: jax.Array, group_P: jax.Array) -> jax.Array:
    """Multiply each of P blocks by the weight of its group: PxMxF."""
    return jax.lax.map(lambda block: block[0] @ w_ExDxF[block[1]], (x_PxMxD, group_P))


def _block_matmul_forward(x: jax.Array, w: jax.Array, group_P: jax.Array) -> tuple[Any, Any]:
    return _block_matmul(x, w, group_P), (x, w, group_P)


def _block_matmul_backward(residuals: Any, dy_PxMxF: jax.Array) -> tuple[Any, Any, None]:
    x_PxMxD, w_ExDxF, group_P = residuals

    def add_block(dw_ExDxF: jax.Array, block: Any) -> tuple[jax.Array, jax.Array]:
        x_MxD, dy_MxF, group = block
        # Added in place: the gradient that JAX derives adds up whole arrays of all weights.
        dw_ExDxF = dw_ExDxF.at[group].add((x_MxD.T @ dy_MxF).astype(jnp.float32))
        return dw_ExDxF, dy_MxF @ w_ExDxF[group].T

    dw_ExDxF, dx_PxMxD = jax.lax.scan(
        add_block, jnp.zeros(w_ExDxF.shape, jnp.float32), (x_PxMxD, dy_PxMxF, group_P)
    )
    return dx_PxMxD, dw_ExDxF.astype(w_ExDxF.dtype), None


_block_matmul.defvjp(_block_matmul_forward, _block_matmul_backward)
