"""The gated delta rule in chunks: equal to the recurrence, and no example reaches the next."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ift_jax.models.attention.gated_delta import (
    CHUNK,
    DeltaInputs,
    _unit_lower_inverse,
    gated_delta_rule,
    gated_delta_step,
)

# Borders before, at and after those of chunks, several in a chunk, one example over three chunks.
BORDERS = [
    (0, 10, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK),
    (0, CHUNK, CHUNK + 5, CHUNK + 6, 2 * CHUNK + 1),
    (0, 2 * CHUNK + 20),
    (0, 1, 2, CHUNK + 1, 2 * CHUNK - 1),
]
LENGTH = 2 * CHUNK + 30  # The rest of every row is padding.
rule = jax.jit(gated_delta_rule)


def random_inputs(segment_ids, decay=1.0, seed=0, n_heads=(2, 2), widths=(6, 5)):
    """Unit keys and queries, float64; `decay` is the mean size of the logarithms."""
    rng = np.random.default_rng(seed)
    shape = segment_ids.shape
    (G, R), (K, V) = n_heads, widths
    q, k = rng.normal(size=(2, *shape, G, K))
    return DeltaInputs(
        q / np.linalg.norm(q, axis=-1, keepdims=True),
        k / np.linalg.norm(k, axis=-1, keepdims=True),
        rng.normal(size=(*shape, G, R, V)),
        -decay * np.abs(rng.normal(size=(*shape, G, R))),
        1 / (1 + np.exp(-2 * rng.normal(size=(*shape, G, R)))),
        segment_ids,
    )


def packed_segments():
    segment_ids = np.zeros((len(BORDERS), LENGTH), np.int32)
    for row, borders in enumerate(BORDERS):
        for i, (start, end) in enumerate(zip(borders, borders[1:], strict=False), start=1):
            segment_ids[row, start:end] = i
    return segment_ids


def recurrence(inputs):
    """A token at a time, and the state thrown away at every border, in float64."""
    q, k, v, log_decay, beta, segment_ids = inputs
    y = np.zeros_like(v)
    states = np.zeros((*k.shape[:1], *v.shape[2:4], k.shape[-1], v.shape[-1]))
    for row, segments in enumerate(segment_ids):
        state, owner = np.zeros(states.shape[1:]), 0
        for t, segment in enumerate(segments):
            if segment == 0:
                continue
            if segment != owner:
                state, owner = np.zeros_like(state), segment
            state = np.exp(log_decay[row, t])[..., None, None] * state
            held = np.einsum("gk,grkv->grv", k[row, t], state)
            correction = beta[row, t][..., None] * (v[row, t] - held)
            state = state + np.einsum("gk,grv->grkv", k[row, t], correction)
            y[row, t] = np.einsum("gk,grkv->grv", q[row, t], state)
        states[row] = state
    return y, states


# From states that last for thousands of tokens to ones that are gone after one.
@pytest.mark.parametrize("decay", [1e-3, 1.0, 30.0, 1e4])
def test_chunks_equal_the_recurrence(decay):
    inputs = random_inputs(packed_segments(), decay)
    want, want_state = recurrence(inputs)
    got, state = rule(inputs)
    is_token = (inputs.segment_ids_BxL > 0)[..., None, None, None]
    np.testing.assert_allclose(np.where(is_token, got, 0), want, atol=2e-6)
    np.testing.assert_allclose(state, want_state, atol=2e-6)


@pytest.mark.parametrize("decay", [1e-3, 1.0, 30.0])
def test_packed_examples_have_the_gradients_of_examples_alone(decay):
    segment_ids = packed_segments()
    *numbers, _ = random_inputs(segment_ids, decay)
    numbers = tuple(np.float32(part) for part in numbers)
    weights = np.random.default_rng(1).normal(size=numbers[2].shape).astype(np.float32)
    weights *= (segment_ids > 0)[..., None, None, None]

    @jax.jit
    def gradients(numbers, segment_ids, weights):
        def total(numbers):
            return (gated_delta_rule(DeltaInputs(*numbers, segment_ids))[0] * weights).sum()

        return jax.grad(total)(numbers)

    packed = gradients(numbers, segment_ids, weights)
    for row, borders in enumerate(BORDERS):
        for start, end in zip(borders, borders[1:], strict=False):

            def alone(part, row=row, start=start, end=end):
                moved = np.zeros_like(part[:1])
                moved[0, : end - start] = part[row, start:end]
                return moved

            segment = alone(np.ones_like(segment_ids))
            got = gradients(tuple(map(alone, numbers)), segment, alone(weights))
            for ours, theirs in zip(got, packed, strict=True):
                error = np.abs(ours[0, : end - start] - theirs[row, start:end]).max()
                assert error <= 1e-5 * max(1.0, np.abs(ours).max())
    assert all(np.isfinite(part).all() for part in packed)
    is_padding = segment_ids == 0
    assert all((np.asarray(part)[is_padding] == 0).all() for part in packed[:2])


def test_gradients_equal_those_of_the_recurrence():
    segment_ids = packed_segments()[:, : CHUNK + 10]
    *numbers, _ = random_inputs(segment_ids, 0.3)
    rng = np.random.default_rng(2)
    weights = rng.normal(size=numbers[2].shape) * (segment_ids > 0)[..., None, None, None]
    directions = [rng.normal(size=part.shape) for part in numbers]

    def total(numbers):
        return (gated_delta_rule(DeltaInputs(*numbers, segment_ids))[0] * weights).sum()

    gradients = jax.jit(jax.grad(total))(tuple(np.float32(part) for part in numbers))
    step = 1e-5
    for i, direction in enumerate(directions):
        sums = []
        for sign in (1, -1):
            moved = [*numbers]
            moved[i] = moved[i] + sign * step * direction
            sums.append((recurrence(DeltaInputs(*moved, segment_ids))[0] * weights).sum())
        want = (sums[0] - sums[1]) / (2 * step)
        assert np.vdot(gradients[i], direction) == pytest.approx(want, rel=1e-4, abs=1e-4)


def test_a_state_goes_on_through_chunks_padding_and_single_tokens():
    n = 2 * CHUNK + 7
    inputs = random_inputs(np.ones((2, n), np.int32), 0.1)
    want, want_state = recurrence(inputs)
    first = DeltaInputs(*(part[:, : CHUNK + 3] for part in inputs))
    y, state = rule(first)
    outputs = [y]

    # Rows go on by different numbers of tokens; the rest is padding, which changes no state.
    middle = DeltaInputs(*(part[:, CHUNK + 3 : n - 2] for part in inputs))
    lengths = np.array([[n - 5 - CHUNK], [4]])
    segment_ids = np.int32(np.arange(n - 5 - CHUNK) < lengths)
    y, state = rule(middle._replace(segment_ids_BxL=segment_ids), state)
    outputs.append(y)
    for t in range(n - 2, n):
        token = DeltaInputs(*(part[:, t : t + 1] for part in inputs))
        token = token._replace(segment_ids_BxL=np.array([[1], [0]], np.int32))
        y, state = jax.jit(gated_delta_step)(token, state)
        outputs.append(y)
    got = np.concatenate(outputs, axis=1)
    np.testing.assert_allclose(got[0], want[0], atol=2e-6)
    np.testing.assert_allclose(state[0], want_state[0], atol=2e-6)
    _, short = recurrence(DeltaInputs(*(part[1:, : CHUNK + 7] for part in inputs)))
    np.testing.assert_allclose(state[1], short[0], atol=2e-6)


@pytest.mark.parametrize("n", [1, 2, 16, 64])
def test_the_inverse_of_repeated_keys_is_exact(n):
    """Powers of this matrix have entries of 10 ** 18; those of its inverse are 1 and -1."""
    a = np.tril(np.ones((3, n, n), np.float32), -1)
    np.testing.assert_array_equal(
        _unit_lower_inverse(jnp.asarray(a)), np.linalg.inv(np.eye(n) + a).round()
    )


def test_the_backward_pass_keeps_states_of_chunks_and_no_products_of_pairs():
    """What it keeps beside the inputs grows by a state (K x V) for a chunk, not for a token."""

    def kept_bytes(n_chunks):
        shape = (1, n_chunks * CHUNK)
        *numbers, segment_ids = random_inputs(np.ones(shape, np.int32), widths=(32, 32))
        numbers = tuple(np.float32(part) for part in numbers)
        _, backward = jax.vjp(
            lambda *numbers: gated_delta_rule(DeltaInputs(*numbers, segment_ids))[0], *numbers
        )
        return sum(leaf.nbytes for leaf in jax.tree.leaves(backward))

    G, R, K, V = 2, 2, 32, 32
    inputs_of_chunk = 4 * CHUNK * (2 * G * K + G * R * (V + 2) + 1)
    state = 4 * G * R * K * V
    grown = kept_bytes(4) - kept_bytes(2)
    assert grown <= 2 * (2 * inputs_of_chunk + state + 64)
