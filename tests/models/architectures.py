"""One small config of each architecture, its parameters, and batches for it."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from ift_jax.config.schema import DecoderConfig, EncoderDecoderConfig
from ift_jax.models import build_model

DECODER = DecoderConfig(
    vocab_size=64, d_model=24, n_layers=3, n_heads=4, n_kv_heads=2, head_dim=6, d_ff=40
)
LOCAL = dataclasses.replace(
    DECODER, sliding_window=3, global_every=2, qk_norm="head", norm_placement="both"
)
HYBRID = dataclasses.replace(  # Two periods, and a layer that is left.
    DECODER,
    n_layers=5,
    attention_gate=True,
    linear_layers="LF",
    linear_key_heads=2,
    linear_value_heads=4,
    linear_key_dim=6,
    linear_value_dim=5,
    rope_dim=4,
)
T5 = EncoderDecoderConfig(
    vocab_size=64,
    d_model=24,
    n_encoder_layers=2,
    n_decoder_layers=3,
    n_heads=3,
    head_dim=6,
    d_ff=40,
    relative_buckets=8,
    relative_max_distance=12,
)
T5_1_0 = dataclasses.replace(T5, activation="relu", tied_embedding=True)
T5GEMMA = EncoderDecoderConfig(
    block="gemma",
    vocab_size=64,
    d_model=24,
    n_encoder_layers=3,
    n_decoder_layers=2,
    n_heads=4,
    n_kv_heads=2,
    head_dim=6,
    d_ff=40,
    decoder_start_id=2,
    encoder_d_model=20,
    encoder_n_heads=2,
    encoder_n_kv_heads=1,
    encoder_d_ff=28,
    encoder_embedding=True,
    attention_softcap=2.0,
    final_softcap=3.0,
    sliding_window=3,
    global_every=2,
    tied_embedding=True,
)
T5GEMMA_2 = dataclasses.replace(
    T5GEMMA,
    encoder_d_model=0,
    encoder_embedding=False,
    merged_attention=True,
    image_end_id=7,
    qk_norm="head",
    attention_softcap=0.0,
    rope_local_theta=100.0,
    sliding_window=4,
)
UMT5 = dataclasses.replace(T5, activation="gated_silu", bias_per_layer=True)

each_architecture = pytest.mark.parametrize("config", [LOCAL, T5], ids=["decoder", "t5"])
each_config = pytest.mark.parametrize(
    "config",
    [DECODER, LOCAL, T5, T5_1_0, UMT5, T5GEMMA, T5GEMMA_2],
    ids=["plain", "local", "t5", "t5_1_0", "umt5", "t5gemma", "t5gemma_2"],
)

# These programs run once: compiling them without optimization takes a third of the time.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def make(config):
    """A model, random parameters (norms and biases too), and its jitted `hidden`."""
    model = build_model(config)
    rng = np.random.default_rng(0)

    def weight(shape, axes):
        norm = axes[-1] == "norm"
        std = 0.1 if norm or "vocab" in axes else shape.shape[-2] ** -0.5
        return rng.normal(float(norm), std, shape.shape).astype(np.float32)

    return model, jax.tree.map(weight, model.shapes, model.logical_axes), jit(model.hidden)


@functools.cache
def jitted_logits(model):
    """The logits of a batch as a jitted function of (params, batch)."""
    return jit(lambda params, batch: model.logits(params, model.hidden(params, batch)))


def pack(rows, length, prefix=""):
    """The arrays of packed rows; each row is a list of examples, which are lists of tokens."""
    tokens, segment_ids, positions = np.zeros((3, len(rows), length), np.int32)
    for row, examples in enumerate(rows):
        start = 0
        for segment, example in enumerate(examples, start=1):
            end = start + len(example)
            tokens[row, start:end] = example
            segment_ids[row, start:end] = segment
            positions[row, start:end] = np.arange(len(example))
            start = end
        assert start <= length
    arrays = {"tokens": tokens, "segment_ids": segment_ids, "positions": positions}
    return {prefix + name: array for name, array in arrays.items()}


def batch_of(config, rows, lengths=(16, 12)):
    """A batch of rows of (encoder part, decoder part) pairs; a decoder takes the second parts."""
    row_ids = {"row_ids": np.arange(len(rows), dtype=np.int32)}
    decoder_parts = [[decoder_part for _, decoder_part in row] for row in rows]
    if isinstance(config, DecoderConfig):
        return pack(decoder_parts, lengths[1]) | row_ids
    encoder_parts = [[encoder_part for encoder_part, _ in row] for row in rows]
    encoder = pack(encoder_parts, lengths[0], "encoder_")
    return encoder | pack(decoder_parts, lengths[1], "decoder_") | row_ids


def random_example(rng, n_encoder, n_decoder):
    """Random tokens of an encoder part and a decoder part."""
    return rng.integers(1, 64, n_encoder).tolist(), rng.integers(1, 64, n_decoder).tolist()


def full_batch(config, n_rows=4):
    """Rows without padding, each a single example."""
    rng = np.random.default_rng(0)
    return batch_of(config, [[random_example(rng, 16, 12)] for _ in range(n_rows)])
