"""Cohere 2 (Command R7B, Command A): Cohere with windows, and no positions in global layers."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import MOST_LAYERS, SIZE, ConfigFields
from ift_jax.interop.decoder_family import without
from ift_jax.interop.families.cohere import Cohere
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
class Cohere2(Cohere):
    """Three of four layers are local."""

    model_type = "cohere2"
    architecture = "Cohere2ForCausalLM"
    defaults = Cohere.defaults | {
        "rope_theta": 10_000.0,
        "sliding_window": 4096,
        "sliding_window_pattern": 4,
    }

    def read(self, fields: ConfigFields) -> DecoderConfig:
        """Return our config; raise a UserError for a value that is not supported."""
        return rope_where_local(super().read(fields))

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return what Cohere has, but for norms of queries and keys."""
        fields.expect("use_qk_norm", False)
        return super().read_own_fields(fields, head_dim)

    def read_windows(self, fields: ConfigFields, n_layers: int) -> SlidingWindows:
        """Return the window and which layers have it."""
        window = fields.get("sliding_window", SIZE)
        local = [False] * n_layers
        if fields.raw.get("layer_types") is None:
            pattern = fields.get("sliding_window_pattern", whole(1, MOST_LAYERS))
            local = [not is_global(layer, pattern) for layer in range(n_layers)]
        return read_layer_types(fields, window, local)

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return what Cohere has, the window, and which layers have it."""
        window = config.sliding_window or config.max_length
        return (
            without(super().write_own_fields(config), "use_qk_norm")
            | write_layer_types(config)
            | {"sliding_window": window}
        )
