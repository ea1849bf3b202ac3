"""EXAONE 4: norms as in OLMo 2, on each head's queries and keys, and no positions where global."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import MOST_LAYERS, SIZE, ConfigFields
from ift_jax.interop.decoder_family import ATTENTION_AND_MLP_NAMES, QK_NORM_NAMES, DecoderFamily
from ift_jax.interop.families.olmo2 import POST_NORM_NAMES
from ift_jax.interop.layer_types import (
    SlidingWindows,
    is_global,
    read_layer_types,
    rope_where_local,
    write_layer_types,
)
from ift_jax.interop.model_family import register_family
from ift_jax.io.typed_fields import whole


@register_family
class Exaone4(DecoderFamily):
    """In a model with windows, global layers have no RoPE; in one without, all layers have it."""

    model_type = "exaone4"
    architecture = "Exaone4ForCausalLM"
    export_rank = 2
    defaults = DecoderFamily.defaults | {
        "num_key_value_heads": 32,
        "rms_norm_eps": 1e-5,
        "sliding_window": 4096,
        "sliding_window_pattern": 4,
    }
    nullable = DecoderFamily.nullable - {"num_key_value_heads"} | {"sliding_window"}
    fixed = {"norm_placement": "post", "qk_norm": "head"}
    layer_names = ATTENTION_AND_MLP_NAMES | QK_NORM_NAMES | POST_NORM_NAMES

    def read(self, fields: ConfigFields) -> DecoderConfig:
        """Return our config; raise a UserError for a value that is not supported."""
        config = super().read(fields)
        # Without a local layer, a window would only switch off all positions.
        if fields.get("sliding_window", SIZE) and not config.sliding_window:
            raise fields.refusal("layer_types", fields.raw.get("layer_types"), "a local layer")
        return rope_where_local(config) if config.sliding_window else config

    def read_windows(self, fields: ConfigFields, n_layers: int) -> SlidingWindows:
        """Return the window and which layers have it."""
        window = fields.get("sliding_window", SIZE) or 0
        local = [False] * n_layers
        if window and fields.raw.get("layer_types") is None:
            pattern = fields.get("sliding_window_pattern", whole(1, MOST_LAYERS))
            local = [not is_global(layer, pattern) for layer in range(n_layers)]
        return read_layer_types(fields, window, local)

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the window and which layers have it."""
        return write_layer_types(config) | {"sliding_window": config.sliding_window or None}
