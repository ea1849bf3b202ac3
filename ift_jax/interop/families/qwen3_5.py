"""Qwen3.5's text models (3.6 and 3.8 too): layers with linear attention, and gated attention."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import MOST_HEADS, MOST_LAYERS, ConfigFields
from ift_jax.interop.decoder_family import (
    ATTENTION_AND_MLP_NAMES,
    PRE_NORM_NAMES,
    QK_NORM_NAMES,
    DecoderFamily,
    read_attention_bias,
    write_attention_bias,
)
from ift_jax.interop.layer_types import GLOBAL, SlidingWindows, shortest_pattern
from ift_jax.interop.model_family import register_family
from ift_jax.interop.rope_fields import (
    read_rope,
    rope_parameters,
    write_rotated_part,
    written_scaling,
)
from ift_jax.io.typed_fields import ANYTHING, FLAG, NULL, TEXT, list_of, one_of, whole

LINEAR = "linear_attention"
_SIZES = {  # Ours -> theirs.
    "linear_key_heads": "linear_num_key_heads",
    "linear_value_heads": "linear_num_value_heads",
    "linear_key_dim": "linear_key_head_dim",
    "linear_value_dim": "linear_value_head_dim",
    "linear_conv": "linear_conv_kernel_dim",
}
_LINEAR_NAMES = {
    "linear_attention.qkv": "linear_attn.in_proj_qkv",
    "linear_attention.gate": "linear_attn.in_proj_z",
    "linear_attention.beta": "linear_attn.in_proj_b",
    "linear_attention.decay": "linear_attn.in_proj_a",
    "linear_attention.out": "linear_attn.out_proj",
    "linear_attention.norm": "linear_attn.norm",
    "linear_attention.conv": "linear_attn.conv1d.weight",
    "linear_attention.a_log": "linear_attn.A_log",
    "linear_attention.dt_bias": "linear_attn.dt_bias",
}


@register_family
class Qwen3_5Text(DecoderFamily):  # noqa: N801 - the name in `transformers`.
    """Three of four layers have linear attention, unless `layer_types` lists others."""

    model_type = "qwen3_5_text"
    architecture = "Qwen3_5ForCausalLM"
    defaults = DecoderFamily.defaults | {
        "full_attention_interval": 4,
        "head_dim": 256,
        "num_key_value_heads": 4,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_conv_kernel_dim": 4,
    }
    nullable = DecoderFamily.nullable - {"num_key_value_heads"}
    ignored = {
        **DecoderFamily.ignored,
        "mlp_only_layers": list_of(ANYTHING),  # `transformers` has the same kind in all layers.
        # Its state is float32 here anyway.
        "mamba_ssm_dtype": TEXT,
        # Heads that predict further tokens; `transformers` does not load them either.
        "mtp_num_hidden_layers": whole(),
        "mtp_use_dedicated_embeddings": FLAG,
    }
    fixed = {"norm_offset": 1.0, "qk_norm": "head", "attention_gate": True}
    layer_names = ATTENTION_AND_MLP_NAMES | QK_NORM_NAMES | PRE_NORM_NAMES | _LINEAR_NAMES
    rotated_part = 0.25
    ignored_beginnings = ("mtp.",)

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return the biases, and the sizes of linear attention and which layers have it."""
        fields.expect("attn_output_gate", True)
        fields.get("output_gate_type", one_of(("swish", "silu")), "swish")
        sizes = {ours: fields.get(theirs, whole(1, MOST_HEADS)) for ours, theirs in _SIZES.items()}
        key_heads = sizes["linear_key_heads"]
        if sizes["linear_value_heads"] % key_heads:
            raise fields.refusal(
                "linear_num_value_heads",
                sizes["linear_value_heads"],
                f"a multiple of the {key_heads} key heads",
            )
        n_layers = fields.get("num_hidden_layers", whole(1, MOST_LAYERS))
        return read_attention_bias(fields) | sizes | {"linear_layers": _pattern(fields, n_layers)}

    def read_windows(self, fields: ConfigFields, n_layers: int) -> SlidingWindows:
        """Return that no layer has a window; `read_own_fields` reads `layer_types`."""
        return SlidingWindows(0, 0)

    def read_rope(self, fields: ConfigFields) -> dict[str, Any]:
        """Return the RoPE fields; the positions of a text are the same in all three grids."""
        name, parameters = rope_parameters(fields)
        parameters = dict(parameters)
        inner = fields.nested(name, parameters)
        section = inner.get("mrope_section", list_of(whole(0, MOST_HEADS)) | NULL, None)
        if section is not None and len(section) != 3:
            raise inner.refusal("mrope_section", section, "three numbers")
        inner.get("mrope_interleaved", FLAG | NULL, None)
        for read in ("mrope_section", "mrope_interleaved"):
            parameters.pop(read, None)
        return read_rope(fields, name, parameters, in_part=True)

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the biases, the sizes of linear attention, the kinds of layers, and RoPE."""
        scaling = {"rope_type": "default"}
        if config.rope_scaling != "none":
            scaling = written_scaling(config)
        return write_attention_bias(config) | {
            **{theirs: getattr(config, ours) for ours, theirs in _SIZES.items()},
            "attn_output_gate": True,
            "layer_types": [LINEAR if k == "linear" else GLOBAL for k in config.attention_kinds()],
            "rope_scaling": None,
            "rope_parameters": {
                **scaling,
                "rope_theta": config.rope_theta,
                **write_rotated_part(config),
            },
        }


def _pattern(fields: ConfigFields, n_layers: int) -> str:
    """Return our field `linear_layers`."""
    interval = fields.get("full_attention_interval", whole(1, MOST_LAYERS))
    names = fields.get("layer_types", list_of(one_of((LINEAR, GLOBAL))))
    if names is None:
        letters = "".join("F" if (i + 1) % interval == 0 else "L" for i in range(n_layers))
    else:
        if len(names) != n_layers:
            raise fields.refusal("layer_types", names, f"{n_layers} items, one for each layer")
        letters = "".join("L" if name == LINEAR else "F" for name in names)
    return "" if "L" not in letters else shortest_pattern(letters)
