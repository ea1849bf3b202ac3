"""Shapes of published models, under the names of their Hugging Face repositories in lower case.

A recipe that starts from fresh weights, or that is only planned (`ift plan`), needs the shape in
its config. A recipe that starts from a checkpoint (`model.init_from`) takes the shape from there.
Precision, rematerialization and dropout belong to a recipe, so they are not part of a shape.
"""

from typing import Any

from ml_collections import ConfigDict

from ift_jax.errors import UserError, did_you_mean

Shape = dict[str, Any]  # Fields of the config's section `model`.


def _decoder(
    d_model: int,
    n_layers: int,
    n_heads: int,
    n_kv_heads: int,
    head_dim: int,
    d_ff: int,
    **fields: Any,
) -> Shape:
    return {
        "architecture": "decoder",
        "d_model": d_model,
        "n_layers": n_layers,
        "n_heads": n_heads,
        "n_kv_heads": n_kv_heads,
        "head_dim": head_dim,
        "d_ff": d_ff,
        **fields,
    }


def _encoder_decoder(
    d_model: int, n_layers: int, n_heads: int, head_dim: int, d_ff: int, **fields: Any
) -> Shape:
    """A shape whose encoder and decoder have `n_layers` each."""
    return {
        "architecture": "encoder_decoder",
        "d_model": d_model,
        "n_encoder_layers": n_layers,
        "n_decoder_layers": n_layers,
        "n_heads": n_heads,
        "head_dim": head_dim,
        "d_ff": d_ff,
        **fields,
    }


# LLaMA, arXiv:2302.13971. The epsilon of the norms is 1e-5 for the 65B model alone.
_LLAMA = {"vocab_size": 32_000, "max_length": 2048, "norm_eps": 1e-6, "tied_embedding": False}
# Llama 2, arXiv:2307.09288.
_LLAMA_2 = {"vocab_size": 32_000, "max_length": 4096, "norm_eps": 1e-5, "tied_embedding": False}
# Llama 3.1, arXiv:2407.21783.
_LLAMA_3_1 = {
    "vocab_size": 128_256,
    "max_length": 131_072,
    "norm_eps": 1e-5,
    "tied_embedding": False,
    "rope_theta": 500_000.0,
    "rope_scaling": "llama3",
    "rope_factor": 8.0,
    "rope_low_freq_factor": 1.0,
    "rope_high_freq_factor": 4.0,
    "rope_original_length": 8192,
}
# GPT-3's widths and depths (arXiv:2005.14165, table 2.1) in this project's blocks: RoPE, RMS norms
# and a gated feed-forward layer, whose width keeps the number of parameters (three matrices of
# 5,504 for two of 8,192). The table gives the 1.3B model 24 heads of 128, which is not its width
# of 2,048; it has 16 here. The vocabulary is GPT-2's 50,257 ids, rounded up.
_GPT_3 = {"vocab_size": 50_304, "max_length": 2048}
# T5, arXiv:1910.10683, and T5 1.1, arXiv:2002.05202. The LM-adapted checkpoints share 1.1's shapes.
_T5 = {"vocab_size": 32_128, "activation": "relu", "tied_embedding": True}
_T5_1_1 = {"vocab_size": 32_128, "activation": "gated_gelu", "tied_embedding": False}

MODEL_SHAPES: dict[str, Shape] = {
    # d_model, layers, heads, key-value heads, head_dim, d_ff.
    "llama-7b": _decoder(4096, 32, 32, 32, 128, 11_008, **_LLAMA),
    "llama-13b": _decoder(5120, 40, 40, 40, 128, 13_824, **_LLAMA),
    "llama-65b": _decoder(8192, 80, 64, 64, 128, 22_016, **_LLAMA | {"norm_eps": 1e-5}),
    "llama-2-7b": _decoder(4096, 32, 32, 32, 128, 11_008, **_LLAMA_2),
    "llama-2-13b": _decoder(5120, 40, 40, 40, 128, 13_824, **_LLAMA_2),
    "llama-2-70b": _decoder(8192, 80, 64, 8, 128, 28_672, **_LLAMA_2),
    "llama-3.1-8b": _decoder(4096, 32, 32, 8, 128, 14_336, **_LLAMA_3_1),
    "llama-3.1-70b": _decoder(8192, 80, 64, 8, 128, 28_672, **_LLAMA_3_1),
    "gpt-3-1.3b": _decoder(2048, 24, 16, 16, 128, 5504, **_GPT_3),
    "gpt-3-6.7b": _decoder(4096, 32, 32, 32, 128, 11_008, **_GPT_3),
    # LaMDA (arXiv:2201.08239), which has T5's relative positions where this decoder has RoPE.
    "lamda-137b": _decoder(8192, 64, 128, 128, 128, 65_536, vocab_size=32_000, activation="gelu"),
    # d_model, layers of each stack, heads, head_dim, d_ff.
    "t5-small": _encoder_decoder(512, 6, 8, 64, 2048, **_T5),
    "t5-base": _encoder_decoder(768, 12, 12, 64, 3072, **_T5),
    "t5-large": _encoder_decoder(1024, 24, 16, 64, 4096, **_T5),
    "t5-3b": _encoder_decoder(1024, 24, 32, 128, 16_384, **_T5),
    "t5-11b": _encoder_decoder(1024, 24, 128, 128, 65_536, **_T5),
    "t5-v1_1-small": _encoder_decoder(512, 8, 6, 64, 1024, **_T5_1_1),
    "t5-v1_1-base": _encoder_decoder(768, 12, 12, 64, 2048, **_T5_1_1),
    "t5-v1_1-large": _encoder_decoder(1024, 24, 16, 64, 2816, **_T5_1_1),
    "t5-v1_1-xl": _encoder_decoder(2048, 24, 32, 64, 5120, **_T5_1_1),
    "t5-v1_1-xxl": _encoder_decoder(4096, 24, 64, 64, 10_240, **_T5_1_1),
}


def set_model_shape(config: ConfigDict, name: str) -> None:
    """Sets the fields of `config.model` that make the shape of a published model.

    Fields that are not part of a shape (`init_from`, `dropout`, `dtype`, `remat`, `attention`)
    keep their values.

    Args:
        config: A config as `default_config` makes it, of the model's architecture.
        name: A key of `MODEL_SHAPES`, such as "llama-3.1-8b" or "t5-v1_1-xl".

    Raises:
        UserError: There is no such name, or the config has the other architecture.
    """
    if name not in MODEL_SHAPES:
        near = did_you_mean(name, MODEL_SHAPES)
        raise UserError(f"no model shape {name!r}{near or '; known: ' + ', '.join(MODEL_SHAPES)}")
    shape = MODEL_SHAPES[name]
    if config.model.architecture != shape["architecture"]:
        raise UserError(
            f"the model shape {name!r} needs default_config({shape['architecture']!r}); "
            f"the config has {config.model.architecture!r}"
        )
    config.model.update(shape)
