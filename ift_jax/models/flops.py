"""Model FLOPs of training, from which model FLOP utilization (MFU) is computed.

Counted are 2 FLOPs for each parameter of a matrix product and each token that it is applied to, in
the forward pass and once more for each gradient; the head at the trained tokens only; and
12 * heads * head_dim for each pair of a query and a key that it attends to, in each layer. Not
counted are what remat computes again, padding, untrained positions of the head, embeddings, norms,
softmax and the optimizer.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ift_jax.config.schema import DecoderConfig, EncoderDecoderConfig, ModelConfig
from ift_jax.models.decoder import layer_windows

Path = tuple[Any, ...]  # A parameter's path in the tree of parameters.

TRAINED_MATRIX = (
    6.0  # FLOPs per parameter and token: forward, and the gradients by input and weight.
)
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
    per_pair = 12.0 * config.n_heads * config.head_dim
    if isinstance(config, DecoderConfig):
        total += _sum_flops(matrix_flops, lambda path: path[0] == "layers") * n.sum()
        total += per_pair * _decoder_pairs(config, n)
        return float(total / max(n.sum(), 1.0))
    total += _sum_flops(matrix_flops, _reads_encoder) * m.sum()
    total += _sum_flops(matrix_flops, _reads_decoder) * n.sum()
    total += per_pair * _encoder_decoder_pairs(config, n, m)
    return float(total / max(n.sum() + m.sum(), 1.0))


def _sum_flops(matrix_flops: Mapping[Path, float], wanted: Callable[[Path], bool]) -> float:
    return sum(flops for path, flops in matrix_flops.items() if wanted(path))


def _reads_encoder(path: Path) -> bool:
    """Whether a matrix is applied to encoder tokens, as the keys and values of cross-attention."""
    return path[0] == "encoder" or ("cross" in path and ("key" in path or "value" in path))


def _reads_decoder(path: Path) -> bool:
    return path[0] == "decoder" and not _reads_encoder(path)


def _decoder_pairs(config: DecoderConfig, n: np.ndarray) -> float:
    """Pairs of a query and a key that it attends to, over all layers."""
    # The first `seen` tokens attend to all before them, each later one to `seen` tokens.
    seen = np.minimum(layer_windows(config)[:, None], n)
    return (seen * (seen + 1) / 2 + (n - seen) * seen).sum()


def _encoder_decoder_pairs(config: EncoderDecoderConfig, n: np.ndarray, m: np.ndarray) -> float:
    in_encoder = config.n_encoder_layers * (m * m).sum()
    in_decoder = config.n_decoder_layers * (n * (n + 1) / 2 + n * m).sum()
    return in_encoder + in_decoder
