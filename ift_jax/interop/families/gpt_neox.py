"""GPT-NeoX (Pythia): layer norms, biases, fused projections; a quarter of each head is rotated."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import SIZE, ConfigFields
from ift_jax.interop.decoder_family import (
    DecoderFamily,
    read_attention_bias,
    without,
    write_attention_bias,
)
from ift_jax.interop.model_family import register_family
from ift_jax.interop.rope_fields import (
    read_rope,
    read_rotated_part,
    rope_parameters,
    write_rotated_part,
)
from ift_jax.interop.tensor_names import TensorNames
from ift_jax.io.typed_fields import NUMBER, POSITIVE

_FUSED = ("attention.query", "attention.key", "attention.value")


@register_family
class GptNeoX(DecoderFamily):
    """Attention and feed-forward layer are side by side, each behind a norm of its own."""

    model_type = "gpt_neox"
    architecture = "GPTNeoXForCausalLM"
    export_rank = 2
    heads_divide_width = True
    defaults = without(DecoderFamily.defaults, "rms_norm_eps") | {
        "attention_bias": True,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "use_parallel_residual": True,
    }
    nullable = DecoderFamily.nullable | {"head_dim"}
    ignored = {**DecoderFamily.ignored, "hidden_dropout": NUMBER}
    # The 20B model's name of what others call "gelu_pytorch_tanh"; the last one is written.
    activations = {**DecoderFamily.activations, "gelu_fast": "gelu_tanh"}
    fixed = {"norm": "biased_layer", "mlp_gated": False, "mlp_bias": True}
    norm_eps_field = "layer_norm_eps"
    layer_names = {
        **dict.fromkeys(_FUSED, "attention.query_key_value"),
        "attention.out": "attention.dense",
        "mlp.up": "mlp.dense_h_to_4h",
        "mlp.down": "mlp.dense_4h_to_h",
        "attention_pre_norm": "input_layernorm",
        "mlp_pre_norm": "post_attention_layernorm",
    }

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return the biases, and where the norms are; refuse heads that the type does not have."""
        n_heads = fields.get("num_attention_heads", SIZE)
        fields.expect("num_key_value_heads", n_heads)
        fields.expect("head_dim", fields.get("hidden_size", SIZE) // n_heads)
        placement = "parallel_norms" if fields.flag("use_parallel_residual") else "pre"
        return read_attention_bias(fields) | {"norm_placement": placement}

    def read_rope(self, fields: ConfigFields) -> dict[str, Any]:
        """Return the RoPE fields, two of which have other names outside of `rope_parameters`."""
        name, parameters = rope_parameters(fields)
        parameters = {
            "rope_theta": fields.get("rotary_emb_base", POSITIVE, 10_000.0),
            "partial_rotary_factor": fields.get("rotary_pct", POSITIVE, 0.25),
            **parameters,
        }
        head_dim = fields.get("hidden_size", SIZE) // fields.get("num_attention_heads", SIZE)
        part = read_rotated_part(fields, parameters, head_dim, parameters["partial_rotary_factor"])
        return read_rope(fields, name, parameters, in_part=True) | part

    def write(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the fields of a config.json, as transformers 4 spells them."""
        fields = super().write(config)
        return without(fields, "head_dim", "num_key_value_heads", "rope_theta") | {
            "rotary_emb_base": config.rope_theta,
            "rotary_pct": write_rotated_part(config)["partial_rotary_factor"],
        }

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the biases, and whether attention and feed-forward layer are side by side."""
        return write_attention_bias(config) | {
            "use_parallel_residual": config.norm_placement == "parallel_norms"
        }

    def tensor_names(self, config: DecoderConfig) -> TensorNames:
        """Return what the tensors of a model with this config are called."""
        names = super().tensor_names(config)
        stacks = {
            stack: dataclasses.replace(layer, prefix="gpt_neox.layers")
            for stack, layer in names.stacks.items()
        }
        return dataclasses.replace(
            names,
            stacks=stacks,
            outside={
                "embedding": "gpt_neox.embed_in.weight",
                "final_norm.scale": "gpt_neox.final_layer_norm.weight",
                "final_norm.bias": "gpt_neox.final_layer_norm.bias",
                "head": "embed_out.weight",
            },
            copies={"embed_out.weight": "gpt_neox.embed_in.weight"},
            # Masks that old releases hold as tensors.
            ignored_endings=(
                *names.ignored_endings,
                ".attention.bias",
                ".attention.masked_bias",
            ),
        )

    def fused_rows(self, config: DecoderConfig) -> Mapping[str, tuple[int, ...]]:
        """Return the rows of queries, keys and values, which alternate from head to head."""
        rows = np.arange(3 * config.n_heads * config.head_dim)
        by_part = rows.reshape(config.n_heads, 3, config.head_dim).swapaxes(0, 1)
        return {
            name: tuple(part.flatten().tolist()) for name, part in zip(_FUSED, by_part, strict=True)
        }
