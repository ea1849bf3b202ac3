"""Gemma 4's text models: global layers with heads of their own, shared keys and values, and more.

E2B and E4B have embeddings for each layer, and last layers that read the keys and values of earlier
ones. 12B ("unified") and 31B have neither; their global layers project keys alone.
"""

import dataclasses
from typing import Any, ClassVar

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import MOST_HEADS, MOST_LAYERS, SIZE, ConfigFields
from ift_jax.interop.decoder_family import (
    ATTENTION_AND_MLP_NAMES,
    QK_NORM_NAMES,
    DecoderFamily,
    read_attention_bias,
    without,
    write_attention_bias,
)
from ift_jax.interop.families.gemma2 import FOUR_NORM_NAMES
from ift_jax.interop.ignored_fields import IGNORED_FIELDS
from ift_jax.interop.layer_types import (
    GLOBAL,
    LOCAL,
    SlidingWindows,
    is_global,
    sliding_windows,
    write_layer_types,
)
from ift_jax.interop.model_family import register_family
from ift_jax.interop.rope_fields import read_rope, written_scaling
from ift_jax.interop.tensor_names import TensorNames
from ift_jax.io.typed_fields import (
    NOT_NEGATIVE,
    NULL,
    OBJECT,
    POSITIVE,
    Kind,
    list_of,
    one_of,
    whole,
)
from ift_jax.text.tokenizers.base import MOST_TOKENS

_FRACTION = Kind("a number from 0 to 1", lambda v: NOT_NEGATIVE.accepts(v) and v <= 1)
_DEFAULT_ROPE = {
    LOCAL: {"rope_type": "default", "rope_theta": 10_000.0},
    GLOBAL: {
        "rope_type": "proportional",
        "partial_rotary_factor": 0.25,
        "rope_theta": 1_000_000.0,
    },
}
_GLOBAL_HEAD_DIM = 512  # Where config.json says nothing of it.
_EXPERT_FIELDS = ("num_experts", "top_k_experts", "moe_intermediate_size")
_LAYER_INPUT_NAMES = {
    "layer_input.gate": "per_layer_input_gate",
    "layer_input.out": "per_layer_projection",
    "layer_input.norm": "post_per_layer_input_norm",
}


@register_family
class Gemma4Text(DecoderFamily):
    """Five of six layers are local; queries are not scaled, and values are normalized.

    Attributes:
        has_layer_inputs: Whether models may have embeddings for each layer.
    """

    model_type = "gemma4_text"
    architecture = "Gemma4ForCausalLM"
    defaults = {
        "final_logit_softcapping": None,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size_per_layer_input": 256,
        "layer_types": None,
        "max_position_embeddings": 131_072,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "num_kv_shared_layers": 0,
        "rms_norm_eps": 1e-6,
        "rope_parameters": None,
        "rope_theta": 10_000.0,  # `_read_global_rope` refuses what has none inside.
        "sliding_window": 512,
        "tie_word_embeddings": True,
        "use_bidirectional_attention": None,
        "vocab_size": 262_144,
        "vocab_size_per_layer_input": 262_144,
    }
    nullable = frozenset(
        {
            "final_logit_softcapping",
            "layer_types",
            "per_layer_config",
            "rope_parameters",
            "use_bidirectional_attention",
            *_EXPERT_FIELDS,
        }
    )
    ignored = IGNORED_FIELDS
    fixed = {
        "norm_placement": "both",
        "qk_norm": "head",
        "query_scale": 1.0,
        "scale_embedding": True,
        "value_norm": True,
        "layer_scalar": True,
    }
    activation_field = "hidden_activation"
    layer_names = {
        **ATTENTION_AND_MLP_NAMES,
        **QK_NORM_NAMES,
        **FOUR_NORM_NAMES,
        **_LAYER_INPUT_NAMES,
        "scalar": "layer_scalar",
    }
    scales_rope_in_local_layers = False
    has_layer_inputs: ClassVar[bool] = True

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return what global layers have of their own, what is shared, and the layers' inputs."""
        if fields.flag("enable_moe_block"):
            raise fields.refusal(
                "enable_moe_block", True, "false: experts beside a feed-forward layer (26B-A4B)"
            )
        for name in _EXPERT_FIELDS:  # Nothing reads them without the field above.
            fields.get(name, whole(), None)
        # Tokens of images alone attend in both directions.
        fields.get("use_bidirectional_attention", one_of(("vision",)))
        n_shared = fields.get("num_kv_shared_layers", whole(0, MOST_LAYERS))
        softcap = fields.get("final_logit_softcapping", POSITIVE) or 0.0
        doubled = fields.flag("use_double_wide_mlp")
        return {
            **read_attention_bias(fields),
            **self._read_layer_inputs(fields),
            **_read_global_heads(fields, head_dim),
            "final_softcap": float(softcap),
            "global_values_are_keys": fields.flag("attention_k_eq_v"),
            "kv_shared_layers": n_shared,
            "double_d_ff_where_shared": doubled and n_shared > 0,
        }

    def _read_layer_inputs(self, fields: ConfigFields) -> dict[str, Any]:
        """Return the width and the rows of the embeddings that each layer has of its own."""
        if not self.has_layer_inputs:
            fields.expect("hidden_size_per_layer_input", 0)  # The release writes both.
            fields.get("vocab_size_per_layer_input", whole(1, MOST_TOKENS), None)
            return {}
        width = fields.get("hidden_size_per_layer_input", whole(0, MOST_HEADS))
        n_rows = fields.get("vocab_size_per_layer_input", whole(1, MOST_TOKENS))
        if not width:
            return {}
        vocab_size = fields.get("vocab_size", whole(1, MOST_TOKENS))
        if n_rows < vocab_size:
            raise fields.refusal(
                "vocab_size_per_layer_input", n_rows, f"at least the vocab_size {vocab_size}"
            )
        return {
            "layer_input_dim": width,
            "layer_input_rows": 0 if n_rows == vocab_size else n_rows,
        }

    def read_windows(self, fields: ConfigFields, n_layers: int) -> SlidingWindows:
        """Return the window and which layers have it; the last one is global in any case."""
        window = fields.get("sliding_window", SIZE)
        return sliding_windows(window, _read_local_layers(fields, n_layers))

    def read_rope(self, fields: ConfigFields) -> dict[str, Any]:
        """Return the RoPE fields; each type of layers has an object of its own."""
        parameters = fields.get("rope_parameters", OBJECT)
        parameters = _DEFAULT_ROPE if parameters is None else parameters
        if not parameters.keys() <= {GLOBAL, LOCAL} or GLOBAL not in parameters:
            raise fields.refusal(
                "rope_parameters", parameters, f"one object for {GLOBAL}, one for {LOCAL}"
            )
        of_local = parameters.get(LOCAL, _DEFAULT_ROPE[LOCAL])
        local = fields.nested(f"rope_parameters.{LOCAL}", of_local)
        local.expect("rope_type", "default")
        local.expect("partial_rotary_factor", 1.0)
        local_theta = float(local.get("rope_theta", POSITIVE))
        local.finish()
        of_global = _read_global_rope(fields, parameters[GLOBAL])
        return of_global | {"rope_local_theta": local_theta}

    def write(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the fields of a config.json; RoPE is in `rope_parameters` alone."""
        fields = super().write(config)
        for name in ("rope_theta", "rope_scaling"):
            fields.pop(name, None)
        return fields

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return what `read_own_fields`, `read_windows` and `read_rope` read."""
        scaling = {"rope_type": "default"}
        if config.rope_scaling != "none":
            scaling = written_scaling(config)
        local_theta = config.rope_local_theta or config.rope_theta
        fields = write_attention_bias(config) | write_layer_types(config)
        fields |= {
            # A model without local layers needs a window too; none sees farther than this one.
            "sliding_window": config.sliding_window or config.max_length,
            "final_logit_softcapping": config.final_softcap or None,
            "attention_k_eq_v": config.global_values_are_keys,
            "num_kv_shared_layers": config.kv_shared_layers,
            "use_double_wide_mlp": config.double_d_ff_where_shared,
            **_write_global_heads(config),
            "rope_parameters": {
                LOCAL: {"rope_type": "default", "rope_theta": local_theta},
                GLOBAL: {**scaling, "rope_theta": config.rope_theta},
            },
        }
        if self.has_layer_inputs:
            fields["hidden_size_per_layer_input"] = config.layer_input_dim
            fields["vocab_size_per_layer_input"] = config.n_layer_input_rows
        return fields

    def tensor_names(self, config: DecoderConfig) -> TensorNames:
        """Return what the tensors of a model with this config are called."""
        names = super().tensor_names(config)
        unread = [  # Releases hold them.
            f"model.layers.{layer}.self_attn.{module}."
            for layer in range(config.n_kv_layers, config.n_layers)
            for module in ("k_proj", "v_proj", "k_norm", "v_norm")
        ]
        outside = {
            **names.outside,
            "layer_inputs.table": "model.embed_tokens_per_layer.weight",
            "layer_inputs.projection.weight": "model.per_layer_model_projection.weight",
            "layer_inputs.norm.scale": "model.per_layer_projection_norm.weight",
        }
        return dataclasses.replace(names, outside=outside, ignored_beginnings=tuple(unread))


@register_family
class Gemma4UnifiedText(Gemma4Text):
    """The text part of 12B, whose images and sounds need no encoder."""

    model_type = "gemma4_unified_text"
    architecture = "Gemma4UnifiedForCausalLM"
    defaults = without(
        Gemma4Text.defaults, "hidden_size_per_layer_input", "vocab_size_per_layer_input"
    ) | {
        "max_position_embeddings": 262_144,
        "sliding_window": 1024,
        "use_bidirectional_attention": "vision",
    }
    has_layer_inputs = False


def _read_global_heads(fields: ConfigFields, head_dim: int) -> dict[str, Any]:
    """Return the width and the number of heads of global layers, where they are others.

    transformers 5.23 writes them as `per_layer_config`, which overrides the two fields of releases.
    """
    widths = whole(2, MOST_HEADS)
    counts = whole(1, MOST_HEADS)
    global_head_dim = fields.get("global_head_dim", widths | NULL, _GLOBAL_HEAD_DIM)
    n_global_kv = fields.get("num_global_key_value_heads", counts | NULL, None)
    n_kv = fields.get("num_key_value_heads", counts)
    if not fields.flag("attention_k_eq_v"):
        n_global_kv = None
    if "per_layer_config" in fields.raw:
        own = _read_overrides(fields)
        global_head_dim = own.get("head_dim", widths, head_dim)
        n_global_kv = own.get("num_key_value_heads", counts, n_kv)
        own.finish()
    if global_head_dim is None:
        raise fields.refusal("global_head_dim", None, widths.expected)
    return {
        "global_head_dim": 0 if global_head_dim == head_dim else global_head_dim,
        "global_kv_heads": 0 if n_global_kv in (None, n_kv) else n_global_kv,
    }


def _read_overrides(fields: ConfigFields) -> ConfigFields:
    """Return what `per_layer_config` says of every global layer, and of no local one."""
    by_layer = fields.get("per_layer_config", OBJECT) or {}
    n_layers = fields.get("num_hidden_layers", whole(1, MOST_LAYERS))
    local = _read_local_layers(fields, n_layers)
    overrides: dict[int, Any] = {number: {} for number in range(n_layers) if not local[number]}
    expected = f"the same object for each {GLOBAL} layer, and none else"
    for number, of_layer in by_layer.items():
        if not number.isdecimal() or int(number) not in overrides:
            raise fields.refusal("per_layer_config", by_layer, expected)
        overrides[int(number)] = of_layer
    first = next(iter(overrides.values()))
    if any(of_layer != first for of_layer in overrides.values()):
        raise fields.refusal("per_layer_config", by_layer, expected)
    return fields.nested("per_layer_config", first)


def _read_local_layers(fields: ConfigFields, n_layers: int) -> list[bool]:
    """Return whether each layer has the window; the last one never has it."""
    names = fields.get("layer_types", list_of(one_of((LOCAL, GLOBAL))))
    local = [not is_global(layer, 6) for layer in range(n_layers)]
    if names is not None:
        if len(names) != n_layers:
            raise fields.refusal("layer_types", names, f"{n_layers} items, one for each layer")
        local = [name == LOCAL for name in names]
    return [*local[:-1], False]


def _write_global_heads(config: DecoderConfig) -> dict[str, Any]:
    """Return the fields that `_read_global_heads` reads."""
    head_dim = config.head_dim_of(local=False)
    n_kv = config.kv_heads_of(local=False)
    fields: dict[str, Any] = {"global_head_dim": head_dim, "num_global_key_value_heads": n_kv}
    if config.global_values_are_keys or n_kv == config.n_kv_heads:
        return fields
    # Otherwise `num_global_key_value_heads` is not read.
    own = {"head_dim": head_dim, "num_key_value_heads": n_kv}
    local = config.local_layers()
    overrides = {str(number): own for number in range(config.n_layers) if not local[number]}
    return fields | {"per_layer_config": overrides}


def _read_global_rope(fields: ConfigFields, parameters: Any) -> dict[str, Any]:
    """Return the RoPE fields of global layers."""
    name = f"rope_parameters.{GLOBAL}"
    inner = fields.nested(name, parameters)
    theta = float(inner.get("rope_theta", POSITIVE))
    if parameters.get("rope_type") != "proportional":
        return read_rope(fields, name, parameters)
    inner.get("rope_type", one_of(("proportional",)))
    values = {
        "rope_theta": theta,
        "rope_scaling": "proportional",
        "rope_proportion": float(inner.get("partial_rotary_factor", _FRACTION, 1.0)),
        "rope_factor": float(inner.get("factor", POSITIVE, 1.0)),
    }
    inner.finish()
    return values
