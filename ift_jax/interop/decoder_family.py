"""What the decoder families have in common: Llama's fields, and Llama's tensor names."""

from collections.abc import Mapping
from typing import Any, ClassVar

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import (
    MOST_HEADS,
    MOST_LAYERS,
    SIZE,
    ConfigFields,
)
from ift_jax.interop.ignored_fields import IGNORED_FIELDS
from ift_jax.interop.layer_types import SlidingWindows, read_layer_types
from ift_jax.interop.model_family import ModelFamily
from ift_jax.interop.rope_fields import (
    read_rope,
    read_rotated_part,
    rope_parameters,
    write_rope,
    write_rotated_part,
)
from ift_jax.interop.tensor_names import LayerNames, TensorNames
from ift_jax.io.typed_fields import ANYTHING, NOT_NEGATIVE, Kind, one_of, whole
from ift_jax.models.layer_stack import numbers_by_kind
from ift_jax.text.tokenizers.base import MOST_TOKENS

# Our fields that are the same number as one of theirs, and the kind of number.
NUMBERS: Mapping[str, tuple[str, Kind]] = {
    "vocab_size": ("vocab_size", whole(1, MOST_TOKENS)),
    "max_length": ("max_position_embeddings", whole(1, 2**31 - 1)),
    "d_model": ("hidden_size", SIZE),
    "n_layers": ("num_hidden_layers", whole(1, MOST_LAYERS)),
    "n_heads": ("num_attention_heads", whole(1, MOST_HEADS)),
    "n_kv_heads": ("num_key_value_heads", whole(1, MOST_HEADS)),
    "head_dim": ("head_dim", whole(2, MOST_HEADS)),
    "d_ff": ("intermediate_size", SIZE),
}
# Their activations -> ours.
ACTIVATIONS: Mapping[str, str] = {
    "silu": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu2": "relu2",
}
MLP_NAMES: dict[str, str] = {
    "mlp.gate": "mlp.gate_proj",
    "mlp.up": "mlp.up_proj",
    "mlp.down": "mlp.down_proj",
}
ATTENTION_AND_MLP_NAMES: dict[str, str] = {
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.out": "self_attn.o_proj",
    **MLP_NAMES,
}
QK_NORM_NAMES: dict[str, str] = {
    "attention.query_norm": "self_attn.q_norm",
    "attention.key_norm": "self_attn.k_norm",
}
PRE_NORM_NAMES: dict[str, str] = {
    "attention_pre_norm": "input_layernorm",
    "mlp_pre_norm": "post_attention_layernorm",
}


class DecoderFamily(ModelFamily[DecoderConfig]):
    """A family whose models are a `Decoder`.

    A subclass says what differs from Llama. `fixed`, `layer_names` and `defaults` are tables; the
    methods `read_own_fields`, `read_windows` and `read_rope` read what only this family has, and
    `write_own_fields` writes it.

    Attributes:
        fixed: Our fields that have one value in every model of the family.
        numbers: Our fields that are the same number as one of theirs, and the kind of number.
        activation_field: The field of `config.json` that holds the activation.
        activations: Their activations -> ours.
        norm_eps_field: The field that holds what norms add to the variance; "": `fixed` has it.
        layer_names: The names of the modules of a layer, see `LayerNames.modules`.
        dense_mlp_names: The same of the feed-forward layer in dense layers, where others have
            experts.
        interleaved: See `LayerNames.interleaved`.
        scalars: See `LayerNames.scalars`.
        ignored_beginnings: See `TensorNames.ignored_beginnings`.
        scales_rope_in_local_layers: Whether `transformers` scales RoPE in layers with a sliding
            window too.
        rotated_part: The part of each head that RoPE rotates if `config.json` does not say it; 0:
            the family's code always rotates all of it.
        heads_divide_width: Whether `transformers` refuses a width that is no multiple of the number
            of heads.
    """

    config_class = DecoderConfig
    ignored: ClassVar[Mapping[str, Kind]] = {
        **IGNORED_FIELDS,
        "_sliding_window_pattern": ANYTHING,
        "max_window_layers": ANYTHING,
        "sliding_window_pattern": ANYTHING,
    }
    defaults: ClassVar[dict[str, Any]] = {
        "head_dim": None,  # The width divided by the number of heads.
        "hidden_act": "silu",
        "layer_types": None,
        "num_key_value_heads": None,  # As many as query heads.
        "rms_norm_eps": 1e-6,
        "rope_parameters": None,
        "rope_scaling": None,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": False,
    }
    nullable: ClassVar[frozenset[str]] = frozenset(
        {
            "layer_types",
            "num_key_value_heads",
            "partial_rotary_factor",
            "rope_interleaved",
            "rope_parameters",
            "rope_scaling",
        }
    )
    fixed: ClassVar[dict[str, Any]] = {}
    numbers: ClassVar[Mapping[str, tuple[str, Kind]]] = NUMBERS
    activation_field: ClassVar[str] = "hidden_act"
    activations: ClassVar[Mapping[str, str]] = ACTIVATIONS
    norm_eps_field: ClassVar[str] = "rms_norm_eps"
    layer_names: ClassVar[dict[str, str]] = ATTENTION_AND_MLP_NAMES | PRE_NORM_NAMES
    dense_mlp_names: ClassVar[dict[str, str]] = MLP_NAMES
    interleaved: ClassVar[frozenset[str]] = frozenset()
    scalars: ClassVar[frozenset[str]] = frozenset()
    ignored_beginnings: ClassVar[tuple[str, ...]] = ()
    rotated_part: ClassVar[float] = 0.0
    scales_rope_in_local_layers: ClassVar[bool] = True
    heads_divide_width: ClassVar[bool] = False

    def read(self, fields: ConfigFields) -> DecoderConfig:
        """Return our config; raise a UserError for a value that is not supported."""
        values: dict[str, Any] = {**self.fixed, **self._read_numbers(fields)}
        values["activation"] = self.read_activation(fields)
        values |= self.read_own_fields(fields, values["head_dim"])
        windows = self.read_windows(fields, values["n_layers"])
        values |= windows._asdict()
        values |= self.read_rope(fields)
        if self.rotated_part:
            _, parameters = rope_parameters(fields)
            values |= read_rotated_part(fields, parameters, values["head_dim"], self.rotated_part)
        scales_rope = values.get("rope_scaling", "none") != "none"
        values["rope_scales_local"] = bool(
            windows.sliding_window and scales_rope and self.scales_rope_in_local_layers
        )
        values["tied_embedding"] = fields.flag("tie_word_embeddings")
        return DecoderConfig(**values)

    def _read_numbers(self, fields: ConfigFields) -> dict[str, Any]:
        """Return our fields in `numbers`; raise a UserError for heads that do not fit together."""
        values = {ours: fields.get(theirs, kind) for ours, (theirs, kind) in self.numbers.items()}
        if self.norm_eps_field:
            values["norm_eps"] = float(fields.get(self.norm_eps_field, NOT_NEGATIVE))
        n_heads, d_model = values["n_heads"], values["d_model"]
        if self.heads_divide_width and d_model % n_heads:
            raise fields.refusal("hidden_size", d_model, f"a multiple of the {n_heads} heads")
        if values["n_kv_heads"] is None:
            values["n_kv_heads"] = n_heads
        if n_heads % values["n_kv_heads"]:
            raise fields.refusal(
                "num_key_value_heads", values["n_kv_heads"], f"a divisor of the {n_heads} heads"
            )
        if values["head_dim"] is None:
            values["head_dim"] = d_model // n_heads
        if values["head_dim"] % 2 or not values["head_dim"]:
            raise fields.refusal(
                "head_dim", values["head_dim"], "an even number above 0, because of RoPE"
            )
        return values

    def read_activation(self, fields: ConfigFields) -> str:
        """Return our name of the activation."""
        return self.activations[fields.get(self.activation_field, one_of(self.activations))]

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return what the family reads beside the fields that all decoders have."""
        return {}

    def read_windows(self, fields: ConfigFields, n_layers: int) -> SlidingWindows:
        """Return the sliding windows; a family without them refuses local layers."""
        return read_layer_types(fields, window=0, local=[False] * n_layers, fixed=True)

    def read_rope(self, fields: ConfigFields) -> dict[str, Any]:
        """Return the RoPE fields of our config."""
        return read_rope(fields, *rope_parameters(fields), in_part=bool(self.rotated_part))

    def write(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the fields of a config.json, as transformers 4 spells them; 5 reads those too."""
        fields: dict[str, Any] = {
            "model_type": self.model_type,
            "architectures": [self.architecture],
            self.activation_field: self.written_activation(config),
            "tie_word_embeddings": config.tied_embedding,
        }
        fields |= {theirs: getattr(config, ours) for ours, (theirs, _) in self.numbers.items()}
        if self.norm_eps_field:
            fields[self.norm_eps_field] = config.norm_eps
        fields |= write_rope(config)
        if self.rotated_part:
            fields |= write_rotated_part(config)
        return fields | self.write_own_fields(config)

    def written_activation(self, config: DecoderConfig) -> str | None:
        """Return their name of the activation; None if the family does not have it."""
        their_activations = {ours: theirs for theirs, ours in self.activations.items()}
        return their_activations.get(config.activation)

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the fields that the family has beside those that all decoders have."""
        return {}

    def tensor_names(self, config: DecoderConfig) -> TensorNames:
        """Return what the tensors of a model with this config are called."""
        by_kind = numbers_by_kind(config.layer_kinds())
        stacks = {}
        for kind, numbers in by_kind.items():
            modules = self.layer_names
            if kind.endswith("_dense"):
                modules = modules | self.dense_mlp_names
            stacks["layers" if len(by_kind) == 1 else f"layers.{kind}"] = LayerNames(
                "model.layers",
                modules,
                self.interleaved,
                tuple(numbers),
                self.fused_rows(config),
                self.scalars,
            )
        return TensorNames(
            stacks=stacks,
            outside={
                "embedding": "model.embed_tokens.weight",
                "final_norm.scale": "model.norm.weight",
                "final_norm.bias": "model.norm.bias",
                "head": "lm_head.weight",
            },
            copies={"lm_head.weight": "model.embed_tokens.weight"},
            ignored_beginnings=self.ignored_beginnings,
            ignored_endings=("rotary_emb.inv_freq",),
        )

    def fused_rows(self, config: DecoderConfig) -> Mapping[str, tuple[int, ...]]:
        """Return `LayerNames.rows` of a model with this config."""
        return {}


def without(fields: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return fields, such as a family's defaults, but those of these names."""
    return {name: value for name, value in fields.items() if name not in names}


def read_attention_bias(fields: ConfigFields) -> dict[str, Any]:
    """Return our fields for `attention_bias`, which is that of all four projections."""
    bias = fields.flag("attention_bias")
    return {"qkv_bias": bias, "output_bias": bias}


def write_attention_bias(config: DecoderConfig) -> dict[str, Any]:
    """Return the field `attention_bias`."""
    return {"attention_bias": config.qkv_bias}
