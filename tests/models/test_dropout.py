"""Dropout: what its masks depend on, their distribution, and where they are applied."""

import dataclasses

import jax
import numpy as np

from ift_jax.models.dropout import dropout_masks, dropout_row_keys, fold_keys
from tests.models.architectures import DECODER, T5, each_architecture, full_batch, make


@each_architecture
def test_masks_depend_on_the_key_and_the_row_number_only(config):
    _, params, hidden = make(dataclasses.replace(config, dropout=0.3))
    batch = full_batch(config, n_rows=4)
    key = jax.random.key(7)
    whole = np.asarray(hidden(params, batch, key))
    for rows in (slice(0, 2), slice(2, 4)):
        part = hidden(params, {name: array[rows] for name, array in batch.items()}, key)
        # Products of other shapes round differently (up to 5e-5 seen); another mask moves 0.1.
        np.testing.assert_allclose(part, whole[rows], atol=2e-4)
    other_key = np.asarray(hidden(params, batch, jax.random.key(8)))
    assert np.abs(other_key - whole).max() > 0.1
    same_text = {name: array[[0, 0, 0, 0]] for name, array in batch.items()}
    row_ids = {"row_ids": np.arange(4, dtype=np.int32)}
    rows = np.asarray(hidden(params, same_text | row_ids, key))
    assert np.abs(rows[0] - rows[1]).max() > 0.1  # Rows have masks of their own.


@each_architecture
def test_without_a_key_there_is_no_dropout(config):
    _, params, hidden = make(dataclasses.replace(config, dropout=0.3))
    _, _, hidden_at_rate_0 = make(config)
    batch = full_batch(config)
    np.testing.assert_array_equal(
        hidden(params, batch), hidden_at_rate_0(params, batch, jax.random.key(7))
    )


def test_masks_preserve_the_expectation():
    @jax.jit
    def draw(key):
        keys_B = dropout_row_keys(key, {"row_ids": np.arange(64)}, 0.25)
        mask, other_site = dropout_masks(fold_keys(keys_B, 3), 0.25, (50, 20), (1000,))
        (other_layer,) = dropout_masks(fold_keys(keys_B, 4), 0.25, (50, 20))
        return mask, other_site.reshape(mask.shape), other_layer

    mask, *others = map(np.asarray, draw(jax.random.key(0)))
    assert set(np.unique(mask).tolist()) == {0.0, np.float32(1 / 0.75)}
    # 64,000 draws: five standard deviations of the mean are 0.012.
    assert abs(mask.mean() - 1) < 0.012
    for other in others:  # Independent of each other.
        assert abs((mask == other).mean() - (0.75**2 + 0.25**2)) < 0.012


def test_linear_dropout_rises_from_nothing_to_the_rate():
    # One sublayer at a time adds ones to a stream of zeros: what is zero then was dropped.
    config = dataclasses.replace(
        DECODER, n_layers=4, dropout=0.3, dropout_schedule="linear", output_bias=True, mlp_bias=True
    )
    model, _, hidden = make(config)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), model.shapes)
    zeros["final_norm"]["scale"] += 1
    n_rows, length = 64, 32
    ones = np.ones((n_rows, length), np.int32)
    batch = {
        "tokens": ones,
        "segment_ids": ones,
        "positions": ones * np.arange(length, dtype=np.int32),
        "row_ids": np.arange(n_rows, dtype=np.int32),
    }

    def dropped_by(params, seed):
        return np.asarray(hidden(params, batch, jax.random.key(seed))) == 0

    masks = []
    for layer in range(4):
        for name, linear in (("attention", "out"), ("mlp", "down")):
            params = jax.tree.map(np.copy, zeros)
            params["layers"][name][linear]["bias"][layer] = 1.0
            dropped = dropped_by(params, seed=1)
            # 49,152 draws: five standard deviations of the share are at most 0.0104.
            assert abs(dropped.mean() - 0.3 * layer / 3) < 0.0104 * (layer > 0) + 1e-9
            masks.append(dropped)
            np.testing.assert_array_equal(dropped_by(params, seed=1), dropped)
            assert (dropped_by(params, seed=2) != dropped).any() == (layer > 0)
    assert all((a != b).any() for a, b in zip(masks[2:], masks[3:], strict=False))


def test_t5_dropout_is_one_mask_for_all_positions():
    # The last dropout follows the final norm: what is zero there shows its mask.
    config = dataclasses.replace(T5, dropout=0.3)
    _, params, hidden = make(config)
    dropped = np.asarray(hidden(params, full_batch(config), jax.random.key(0))) == 0
    assert 0.2 < dropped.mean() < 0.4
    np.testing.assert_array_equal(dropped, np.broadcast_to(dropped[:, :1], dropped.shape))
    assert (dropped[0] != dropped[1]).any()
