"""Logits and losses against `transformers`, float32, within 2e-4."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ift_jax.models import build_model
from ift_jax.models.encoder_decoder import relative_buckets

pytest.importorskip("torch", reason="the reference models are torch modules")
pytest.importorskip("transformers", reason="the reference models live there")

import torch  # noqa: E402

from tests.models import hugging_face as hf  # noqa: E402

TOLERANCE = 2e-4
DECODERS = ("llama", "llama_tied", "qwen2", "qwen3", "gemma2", "mistral", "olmo2")


def tokens(rows: int, length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, hf.VOCAB, (rows, length)).astype(np.int32)


def segments(lengths: list[int], width: int) -> tuple[np.ndarray, np.ndarray]:
    place = np.broadcast_to(np.arange(width, dtype=np.int32), (len(lengths), width))
    return (place < np.asarray(lengths)[:, None]).astype(np.int32), place


@pytest.mark.parametrize("family", DECODERS)
def test_decoder_logits(family):
    reference, config = hf.decoder_pair(family)
    model = build_model(config)
    params = hf.decoder_params(reference, config)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, model.shapes)
    ids = tokens(2, 19)
    segment_ids, positions = segments([19, 13], 19)
    batch = dict(tokens=ids, segment_ids=segment_ids, positions=positions)
    ours = model.logits(params, model.hidden(params, batch))
    with torch.no_grad():
        theirs = reference(torch.tensor(ids), attention_mask=torch.tensor(segment_ids)).logits
    assert np.abs(theirs.numpy()).max() > 1  # Logits worth comparing.
    real = segment_ids > 0
    np.testing.assert_allclose(ours[real], theirs.numpy()[real], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize(("n_source", "n_target"), [(17, 9), (5, 33), (40, 1)])
def test_t5_logits_and_loss(version, n_source, n_target):
    reference, config = hf.t5_pair(version)
    model = build_model(config)
    params = hf.t5_params(reference, config)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, model.shapes)
    sources, targets = tokens(3, n_source), tokens(3, n_target, seed=1)
    sources_in, sources_at = segments([n_source, n_source - 2, 1], n_source)
    targets_in, targets_at = segments([n_target] * 3, n_target)
    batch = dict(
        encoder_tokens=sources,
        encoder_segment_ids=sources_in,
        encoder_positions=sources_at,
        decoder_tokens=np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        decoder_segment_ids=targets_in,
        decoder_positions=targets_at,
    )
    logits = model.logits(params, model.hidden(params, batch))
    with torch.no_grad():
        theirs = reference(
            input_ids=torch.tensor(sources),
            attention_mask=torch.tensor(sources_in),
            labels=torch.tensor(targets, dtype=torch.long),
        )
    np.testing.assert_allclose(logits, theirs.logits.numpy(), atol=TOLERANCE, rtol=0)
    log_p = jax.nn.log_softmax(logits)
    loss = -np.take_along_axis(np.asarray(log_p), targets[..., None], axis=-1).mean()
    np.testing.assert_allclose(loss, theirs.loss.item(), rtol=1e-5)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (16, 24), (8, 20)])
def test_relative_buckets(bidirectional, buckets, max_distance):
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = np.arange(-1100, 1100)
    theirs = T5Attention._relative_position_bucket(
        torch.tensor(distance), bidirectional, buckets, max_distance
    ).numpy()
    ours = relative_buckets(
        distance, bidirectional=bidirectional, buckets=buckets, max_distance=max_distance
    )
    np.testing.assert_array_equal(ours, theirs)
