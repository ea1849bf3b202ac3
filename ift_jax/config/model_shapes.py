"""Shapes of published models, under the names of their Hugging Face repositories in lower case.

A recipe that starts from fresh weights, or that is only planned (`ift plan`), needs the shape in
its config. A recipe that starts from a checkpoint (`model.init_from`) takes the shape from there.
Precision, rematerialization and dropout belong to a recipe, so they are not part of a shape.
"""

from typing import Any

from ml_collections import ConfigDict

from ift_jax.errors import UserError, offered

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
# Qwen3-30B-A3B, arXiv:2505.09388. Of the parameters, 3.3 billion multiply each token.
_QWEN3_30B_A3B = {
    "vocab_size": 151_936,
    "max_length": 40_960,
    "norm_eps": 1e-6,
    "tied_embedding": False,
    "qk_norm": "head",
    "rope_theta": 1_000_000.0,
    "n_experts": 128,
    "experts_per_token": 8,
    "normalize_expert_weights": True,
}
# Qwen3.5, from the releases' config.json; the 0.8B, 2B and 4B models have a tied head.
_QWEN3_5 = {
    "vocab_size": 248_320,
    "max_length": 262_144,
    "norm_offset": 1.0,
    "qk_norm": "head",
    "attention_gate": True,
    "rope_theta": 10_000_000.0,
    "rope_dim": 64,
    "linear_layers": "LLLF",
    "linear_key_heads": 16,
    "linear_key_dim": 128,
    "linear_value_dim": 128,
}
_QWEN3_5_TIED = {**_QWEN3_5, "tied_embedding": True}
_QWEN3_5_UNTIED = {**_QWEN3_5, "tied_embedding": False}
_QWEN3_5_EXPERTS = {
    "n_experts": 256,
    "experts_per_token": 8,
    "normalize_expert_weights": True,
    "shared_d_ff": 512,
}
# Gemma 4, from the releases' config.json; text parts alone. Tables for each layer count as
# parameters, which is why E2B and E4B have more than their names say.
_GEMMA_4 = {
    "vocab_size": 262_144,
    "max_length": 131_072,
    "activation": "gelu_tanh",
    "norm_placement": "both",
    "qk_norm": "head",
    "value_norm": True,
    "query_scale": 1.0,
    "final_softcap": 30.0,
    "rope_theta": 1_000_000.0,
    "rope_local_theta": 10_000.0,
    "rope_scaling": "proportional",
    "rope_proportion": 0.25,
    "global_head_dim": 512,
    "sliding_window": 512,
    "scale_embedding": True,
    "layer_scalar": True,
    "layer_input_dim": 256,
}
_GEMMA_4_E2B = _GEMMA_4 | {
    "global_every": 5,
    "kv_shared_layers": 20,
    "double_d_ff_where_shared": True,
}
_GEMMA_4_E4B = _GEMMA_4 | {"global_every": 6, "kv_shared_layers": 18}
_GEMMA_4_DENSE = _GEMMA_4 | {
    "max_length": 262_144,
    "global_every": 6,
    "global_values_are_keys": True,
    "sliding_window": 1024,
    "layer_input_dim": 0,
}
# GPT-3's widths and depths (arXiv:2005.14165, table 2.1) in this project's blocks: RoPE, RMS norms
# and a gated feed-forward layer, whose width keeps the number of parameters (three matrices of
# 5,504 for two of 8,192). The table gives the 1.3B model 24 heads of 128, which is not its width
# of 2,048; it has 16 here. The vocabulary is GPT-2's 50,257 ids, rounded up.
_GPT_3 = {"vocab_size": 50_304, "max_length": 2048}
# T5, arXiv:1910.10683, and T5 1.1, arXiv:2002.05202. The LM-adapted checkpoints share 1.1's shapes.
_T5 = {"vocab_size": 32_128, "activation": "relu", "tied_embedding": True}
_T5_1_1 = {"vocab_size": 32_128, "activation": "gated_gelu", "tied_embedding": False}
# ByT5, arXiv:2105.13626: a deep encoder, and a vocabulary of bytes.
_BYT5 = {**_T5_1_1, "vocab_size": 384}
# umT5, arXiv:2304.09151.
_UMT5 = {**_T5_1_1, "vocab_size": 256_384, "bias_per_layer": True}
# T5Gemma, arXiv:2504.06225: each stack is a Gemma 2.
_T5GEMMA = {
    "block": "gemma",
    "vocab_size": 256_000,
    "max_length": 8192,
    "decoder_start_id": 2,
    "tied_embedding": True,
    "encoder_embedding": True,
    "attention_softcap": 50.0,
    "final_softcap": 30.0,
    "sliding_window": 4096,
    "global_every": 2,
}
_GEMMA_9B_ENCODER = {
    "n_encoder_layers": 42,
    "encoder_d_model": 3584,
    "encoder_n_heads": 16,
    "encoder_n_kv_heads": 8,
    "encoder_d_ff": 14_336,
}
# T5Gemma 2, arXiv:2512.14856: each stack is Gemma 3's text part, and they share an embedding.
_T5GEMMA_2 = {
    "block": "gemma",
    "vocab_size": 262_144,
    "max_length": 131_072,
    "decoder_start_id": 2,
    "tied_embedding": True,
    "merged_attention": True,
    "image_end_id": 256_000,
    "qk_norm": "head",
    "rope_theta": 1_000_000.0,
    "rope_local_theta": 10_000.0,
    "sliding_window": 512,
    "global_every": 6,
}

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
    "qwen3-30b-a3b": _decoder(2048, 48, 32, 4, 128, 768, **_QWEN3_30B_A3B),
    "qwen3.5-0.8b": _decoder(1024, 24, 8, 2, 256, 3584, linear_value_heads=16, **_QWEN3_5_TIED),
    "qwen3.5-2b": _decoder(2048, 24, 8, 2, 256, 6144, linear_value_heads=16, **_QWEN3_5_TIED),
    "qwen3.5-4b": _decoder(2560, 32, 16, 4, 256, 9216, linear_value_heads=32, **_QWEN3_5_TIED),
    "qwen3.5-9b": _decoder(4096, 32, 16, 4, 256, 12_288, linear_value_heads=32, **_QWEN3_5_UNTIED),
    "qwen3.5-27b": _decoder(5120, 64, 24, 4, 256, 17_408, linear_value_heads=48, **_QWEN3_5_UNTIED),
    "qwen3.5-35b-a3b": _decoder(
        2048, 40, 16, 2, 256, 512, linear_value_heads=32, **_QWEN3_5_UNTIED, **_QWEN3_5_EXPERTS
    ),
    "gemma-4-e2b": _decoder(1536, 35, 8, 1, 256, 6144, **_GEMMA_4_E2B),
    "gemma-4-e4b": _decoder(2560, 42, 8, 2, 256, 10_240, **_GEMMA_4_E4B),
    "gemma-4-12b": _decoder(3840, 48, 16, 8, 256, 15_360, global_kv_heads=1, **_GEMMA_4_DENSE),
    "gemma-4-31b": _decoder(5376, 60, 32, 16, 256, 21_504, global_kv_heads=4, **_GEMMA_4_DENSE),
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
    "byt5-small": _encoder_decoder(1472, 4, 6, 64, 3584, n_encoder_layers=12, **_BYT5),
    "byt5-base": _encoder_decoder(1536, 6, 12, 64, 3968, n_encoder_layers=18, **_BYT5),
    "byt5-large": _encoder_decoder(1536, 12, 16, 64, 3840, n_encoder_layers=36, **_BYT5),
    "byt5-xl": _encoder_decoder(2560, 12, 32, 64, 6720, n_encoder_layers=36, **_BYT5),
    "byt5-xxl": _encoder_decoder(4672, 12, 64, 64, 12_352, n_encoder_layers=36, **_BYT5),
    "umt5-small": _encoder_decoder(512, 8, 6, 64, 1024, **_UMT5),
    "umt5-base": _encoder_decoder(768, 12, 12, 64, 2048, **_UMT5),
    "umt5-xl": _encoder_decoder(2048, 24, 32, 64, 5120, **_UMT5),
    "umt5-xxl": _encoder_decoder(4096, 24, 64, 64, 10_240, **_UMT5),
    "ul2": _encoder_decoder(4096, 32, 16, 256, 16_384, **_T5_1_1 | {"activation": "gated_silu"}),
    "t5gemma-2b-2b": _encoder_decoder(2304, 26, 8, 256, 9216, n_kv_heads=4, **_T5GEMMA),
    "t5gemma-9b-2b": _encoder_decoder(
        2304, 26, 8, 256, 9216, n_kv_heads=4, **_T5GEMMA | _GEMMA_9B_ENCODER
    ),
    "t5gemma-9b-9b": _encoder_decoder(3584, 42, 16, 256, 14_336, n_kv_heads=8, **_T5GEMMA),
    "t5gemma-2-270m-270m": _encoder_decoder(640, 18, 4, 256, 2048, n_kv_heads=1, **_T5GEMMA_2),
    "t5gemma-2-1b-1b": _encoder_decoder(1152, 26, 4, 256, 6912, n_kv_heads=1, **_T5GEMMA_2),
    "t5gemma-2-4b-4b": _encoder_decoder(
        2560,
        34,
        8,
        256,
        10_240,
        n_kv_heads=4,
        **_T5GEMMA_2 | {"sliding_window": 1024, "rope_scaling": "linear", "rope_factor": 8.0},
    ),
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
        raise UserError(f"no model shape {name!r}{offered(name, MODEL_SHAPES)}")
    shape = MODEL_SHAPES[name]
    if config.model.architecture != shape["architecture"]:
        raise UserError(
            f"the model shape {name!r} needs default_config({shape['architecture']!r}); "
            f"the config has {config.model.architecture!r}"
        )
    config.model.update(shape)
