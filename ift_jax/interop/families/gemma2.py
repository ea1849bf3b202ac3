"""Gemma 2: four norms a layer, soft caps, and a sliding window in every other layer."""

from typing import Any, ClassVar

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import SIZE, ConfigFields
from ift_jax.interop.decoder_family import (
    ATTENTION_AND_MLP_NAMES,
    DecoderFamily,
    read_attention_bias,
    without,
    write_attention_bias,
)
from ift_jax.interop.layer_types import (
    SlidingWindows,
    is_global,
    read_layer_types,
    write_layer_types,
)
from ift_jax.interop.model_family import register_family
from ift_jax.io.typed_fields import ANYTHING, POSITIVE, one_of, whole

FOUR_NORM_NAMES = {
    "attention_pre_norm": "input_layernorm",
    "attention_post_norm": "post_attention_layernorm",
    "mlp_pre_norm": "pre_feedforward_layernorm",
    "mlp_post_norm": "post_feedforward_layernorm",
}


@register_family
class Gemma2(DecoderFamily):
    """The scale of the queries is a field of its own.

    Attributes:
        global_every: Every n-th layer is global if `config.json` does not list the layers.
    """

    model_type = "gemma2"
    architecture = "Gemma2ForCausalLM"
    # The activation is in hidden_activation.
    defaults = without(DecoderFamily.defaults, "hidden_act") | {
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "num_key_value_heads": 4,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "tie_word_embeddings": True,
    }
    nullable = DecoderFamily.nullable - {"num_key_value_heads"} | {
        "attn_logit_softcapping",
        "final_logit_softcapping",
        "sliding_window",
        "use_bidirectional_attention",
    }
    # Early releases have hidden_act beside hidden_activation, which alone is used.
    ignored = {**DecoderFamily.ignored, "hidden_act": ANYTHING}
    fixed = {"norm_offset": 1.0, "norm_placement": "both", "scale_embedding": True}
    activation_field = "hidden_activation"
    layer_names = ATTENTION_AND_MLP_NAMES | FOUR_NORM_NAMES
    global_every: ClassVar[int] = 2
    heads_divide_width = True

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return the scale of the queries, the soft caps and the biases."""
        scalar = fields.get("query_pre_attn_scalar", whole(1, 2**31 - 1))
        attention_softcap = fields.get("attn_logit_softcapping", POSITIVE) or 0.0
        final_softcap = fields.get("final_logit_softcapping", POSITIVE) or 0.0
        fields.expect("use_bidirectional_attention", False)
        return read_attention_bias(fields) | {
            "query_scale": 0.0 if scalar == head_dim else scalar**-0.5,
            "attention_softcap": float(attention_softcap),
            "final_softcap": float(final_softcap),
        }

    def read_windows(self, fields: ConfigFields, n_layers: int) -> SlidingWindows:
        """Return the window and which layers have it."""
        window = fields.get("sliding_window", SIZE) or 0
        fields.get("sliding_window_size", one_of((window,)), window)  # 9B and 27B write it twice.
        pattern = self.read_pattern(fields)
        local = [not is_global(layer, pattern) for layer in range(n_layers)]
        return read_layer_types(fields, window, local)

    def read_pattern(self, fields: ConfigFields) -> int:
        """Return which layers are global, every n-th one, unless `layer_types` lists them."""
        if fields.raw.get("layer_types") is None:
            fields.expect("sliding_window_pattern", self.global_every)
            fields.expect("_sliding_window_pattern", self.global_every)
        return self.global_every

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the scale of the queries, the soft caps, the biases and the windows."""
        scalar = (config.query_scale or config.head_dim**-0.5) ** -2
        is_whole = abs(scalar - round(scalar)) < 1e-9
        fields = write_attention_bias(config) | write_layer_types(config)
        return fields | {
            "query_pre_attn_scalar": round(scalar) if is_whole else scalar,
            "attn_logit_softcapping": config.attention_softcap or None,
            "final_logit_softcapping": config.final_softcap or None,
            # A model without local layers needs a window too; none sees farther than this one.
            "sliding_window": config.sliding_window or config.max_length,
        }
