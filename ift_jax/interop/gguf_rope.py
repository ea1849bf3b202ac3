"""Llama 3's RoPE scaling in a GGUF file, which holds its result instead of its parameters.

llama.cpp's converter writes the tensor `rope_freqs.weight`: what each RoPE frequency is divided by.
The parameters are not in the file, but Llama 3.1 to 3.3 share three of four, and the
fourth is the largest divisor.
"""

import dataclasses
from typing import Any

import numpy as np

from ift_jax.config.schema import DecoderConfig
from ift_jax.errors import UserError
from ift_jax.models.rope import frequencies

LOW_FREQ_FACTOR = 1.0
HIGH_FREQ_FACTOR = 4.0
ORIGINAL_LENGTH = 8192  # The converter assumes it, whatever the model says.
_MOST_FACTOR = 1e6  # Far above that of any model.
_TOLERANCE = 1e-5  # The factors are computed in float32, in another order.


def llama3_scaling(config: dict[str, Any], factors: np.ndarray | None, path: str) -> dict[str, Any]:
    """Return the field `rope_scaling` if a file divides its RoPE frequencies as Llama 3 does.

    Args:
        config: The fields of a `config.json`: `head_dim`, `rope_theta` and `rope_scaling`.
        factors: What the file divides each frequency by; None: it does not.
        path: What messages call the file.

    Raises:
        UserError: The divisors are not those that the scaling of Llama 3 gives for this model.
    """
    if factors is None:
        return {}
    where = f"{path}: tensor rope_freqs.weight"
    n_frequencies = config["head_dim"] // 2
    if factors.shape != (n_frequencies,):
        raise UserError(f"{where} has {factors.shape[0]} numbers; expected {n_frequencies}")
    if (factors == 1.0).all():
        return {}
    factor = float(factors.max())
    if not 1.0 < factor < _MOST_FACTOR:  # False for NaN too.
        raise UserError(
            f"{where}: its largest number is {factor:g}; expected a factor above 1 and below "
            f"{_MOST_FACTOR:g}"
        )
    if config["rope_scaling"]:
        raise UserError(f"{where}: expected none beside llama.rope.scaling.factor")
    expected = llama3_factors(config["head_dim"], config["rope_theta"], factor)
    if not np.allclose(factors, expected, rtol=_TOLERANCE, atol=0):  # False for NaN too.
        index = int(np.argmin(np.isclose(factors, expected, rtol=_TOLERANCE, atol=0)))
        raise UserError(
            f"{where}: number {index} is {factors[index]:.7g}; expected the {expected[index]:.7g} "
            f"of Llama 3's scaling by {factor:g}"
        )
    return {
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": LOW_FREQ_FACTOR,
            "high_freq_factor": HIGH_FREQ_FACTOR,
            "original_max_position_embeddings": ORIGINAL_LENGTH,
        }
    }


def check_llama3(config: DecoderConfig) -> None:
    """Refuse a scaling of Llama 3's kind whose parameters a file would not give back.

    Raises:
        UserError: Names the field, and the value that every reader of a file assumes.
    """
    assumed = {
        "rope_low_freq_factor": LOW_FREQ_FACTOR,
        "rope_high_freq_factor": HIGH_FREQ_FACTOR,
        "rope_original_length": ORIGINAL_LENGTH,
    }
    for name, value in assumed.items():
        if getattr(config, name) != value:
            raise UserError(
                f"config.model.{name} is {getattr(config, name):g}; a GGUF file of a model with "
                f"Llama 3's RoPE scaling is read with {value:g}"
            )
    if not 1.0 < config.rope_factor < _MOST_FACTOR:
        raise UserError(
            f"config.model.rope_factor is {config.rope_factor:g}; a GGUF file of a model with "
            f"Llama 3's RoPE scaling is read with one above 1 and below {_MOST_FACTOR:g}"
        )


def llama3_factors(head_dim: int, theta: float, factor: float) -> np.ndarray:
    """Return what our decoder divides each frequency by with Llama 3's scaling."""
    plain = DecoderConfig(head_dim=head_dim, rope_theta=theta)
    scaled = dataclasses.replace(
        plain,
        rope_scaling="llama3",
        rope_factor=factor,
        rope_low_freq_factor=LOW_FREQ_FACTOR,
        rope_high_freq_factor=HIGH_FREQ_FACTOR,
        rope_original_length=ORIGINAL_LENGTH,
    )
    return frequencies(plain, local=False) / frequencies(scaled, local=False)
