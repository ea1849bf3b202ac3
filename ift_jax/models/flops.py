"""Model FLOPs of training, from which model FLOP utilization (MFU) is computed.

Counted are 2 FLOPs for each parameter of a matrix product and each token that it is applied to, in
the forward pass and once more for each gradient; the head at the trained tokens only;
12 * heads * head_dim for each pair of a query and a key that it attends to, in each layer; and 18
for each number in the state of linear attention and each token, which has three products with it.
Not counted are what remat computes again, padding, untrained positions of the head, embeddings,
norms, softmax, what chunks take beyond those three products, and the optimizer.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ift_jax.config.schema import DecoderConfig, EncoderDecoderConfig, ModelConfig
from ift_jax.models.decoder import GLOBAL_WINDOW, layer_windows, softmax_windows

Path = tuple[Any, ...]  # A parameter's path in the tree of parameters.

# FLOPs per parameter and token: forward, and the gradients by input and weight.
TRAINED_MATRIX = 6.0
FROZEN_MATRIX = 4.0  # Forward, and the gradient by the input.


def flops_per_token(
    config: ModelConfig,
    matrix_flops: Mapping[Path, float],
    lengths: npt.ArrayLike,
    trained_tokens: npt.ArrayLike,
    encoder_lengths: npt.ArrayLike,
) -> float:
    """FLOPs of a forward and backward pass over examples, divided by all of their tokens.

    Args:
        config: The model.
        matrix_flops: For each matrix by its path, the FLOPs per token that it is applied to.
        lengths: The tokens of each example; of an encoder-decoder, those of the decoder part.
        trained_tokens: How many of them carry loss.
        encoder_lengths: The tokens of each example's encoder part.
    """
    n = np.asarray(lengths, np.float64)
    m = np.asarray(encoder_lengths, np.float64)
    head = matrix_flops[("embedding",) if config.tied_embedding else ("head",)]
    total = head * np.sum(trained_tokens, dtype=np.float64)
    per_pair = 12.0 * config.n_heads
    if isinstance(config, DecoderConfig):
        total += _sum_flops(matrix_flops, _reads_every_token) * n.sum()
        total += per_pair * _decoder_pairs(config, n)
        n_linear = config.attention_kinds().count("linear")
        state_size = config.linear_value_heads * config.linear_key_dim * config.linear_value_dim
        total += 18.0 * n_linear * state_size * n.sum()
        return float(total / max(n.sum(), 1.0))
    total += _sum_flops(matrix_flops, _reads_encoder) * m.sum()
    total += _sum_flops(matrix_flops, _reads_decoder) * n.sum()
    if config.merged_attention:  # The same projections are applied to the encoder's output too.
        total += _sum_flops(matrix_flops, _projects_decoder_keys) * m.sum()
    encoder_heads = config.encoder_n_heads or config.n_heads
    total += 12.0 * encoder_heads * config.head_dim * _encoder_pairs(config, m)
    total += per_pair * _pairs_in_decoder(config, n, m)
    return float(total / max(n.sum() + m.sum(), 1.0))


def _sum_flops(matrix_flops: Mapping[Path, float], wanted: Callable[[Path], bool]) -> float:
    return sum(flops for path, flops in matrix_flops.items() if wanted(path))


def _reads_every_token(path: Path) -> bool:
    """Whether a matrix of a decoder is applied to all tokens, as the head and a lookup are not."""
    return path[0] == "layers" or path[:2] == ("layer_inputs", "projection")


def _reads_encoder(path: Path) -> bool:
    """Whether a matrix is applied to encoder tokens, as the keys and values of cross-attention."""
    return path[0] == "encoder" or ("cross" in path and ("key" in path or "value" in path))


def _reads_decoder(path: Path) -> bool:
    return path[0] == "decoder" and not _reads_encoder(path)


def _projects_decoder_keys(path: Path) -> bool:
    """Whether a matrix makes the keys or values of the decoder's self-attention."""
    return path[0] == "decoder" and "attention" in path and ("key" in path or "value" in path)


def _decoder_pairs(config: DecoderConfig, n: npt.NDArray[np.float64]) -> float:
    """Pairs of a query and a key that it attends to, times the width of a head, over all layers."""
    # The first `seen` tokens attend to all before them, each later one to `seen` tokens.
    windows = softmax_windows(config)
    seen = np.minimum(windows[:, None], n)
    is_local = windows < GLOBAL_WINDOW
    widths = np.where(is_local, config.head_dim, config.head_dim_of(local=False))
    return float((widths[:, None] * (seen * (seen + 1) / 2 + (n - seen) * seen)).sum())


def _encoder_pairs(config: EncoderDecoderConfig, m: np.ndarray) -> float:
    """Pairs of a query and a key that it attends to, over the layers of the encoder."""
    if config.block == "t5" or not config.sliding_window:
        return config.n_encoder_layers * float((m * m).sum())
    windows = layer_windows(config.stack(decoder=False)).astype(np.float64)[:, None]
    before = after = windows - 1  # The farthest distance, on both sides.
    if config.merged_attention:  # The window is that of both sides together.
        is_local = windows < GLOBAL_WINDOW
        before = np.where(is_local, (windows - 1) // 2, before)
        after = np.where(is_local, windows // 2, after)

    def on_a_side(farthest: np.ndarray) -> np.ndarray:
        """Pairs at a distance from 1 to this one."""
        d = np.minimum(farthest, np.maximum(m - 1, 0))
        return d * m - d * (d + 1) / 2

    return float((m + on_a_side(before) + on_a_side(after)).sum())


def _pairs_in_decoder(config: EncoderDecoderConfig, n: np.ndarray, m: np.ndarray) -> float:
    """Those of the decoder and across, times the width of a head: it reads the whole encoder."""
    across = config.head_dim * config.n_decoder_layers * float((n * m).sum())
    if config.block == "t5":
        own = config.n_decoder_layers * float((n * (n + 1) / 2).sum())
        return config.head_dim * own + across
    return _decoder_pairs(config.stack(decoder=True), n) + across
