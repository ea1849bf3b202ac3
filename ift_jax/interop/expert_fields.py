"""The fields of a `config.json` about a mixture of experts."""

from collections.abc import Mapping
from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import MOST_LAYERS, SIZE, ConfigFields
from ift_jax.interop.layer_types import shortest_pattern
from ift_jax.interop.tensor_names import EXPERT
from ift_jax.io.typed_fields import FLAG, NUMBER, Kind, list_of, whole

MOST_EXPERTS = 1 << 16
# `transformers` reads either name in every family.
_NAMES = ("num_experts", "num_local_experts")

# Losses of the router, which belong to training: `loss.router_balance` here.
IGNORED_ROUTER_FIELDS: Mapping[str, Kind] = {
    "output_router_logits": FLAG,
    "router_aux_loss_coef": NUMBER,
}

EXPERT_NAMES: dict[str, str] = {
    "mlp.router": "mlp.gate",
    "mlp.gate": f"mlp.experts.{EXPERT}.gate_proj",
    "mlp.up": f"mlp.experts.{EXPERT}.up_proj",
    "mlp.down": f"mlp.experts.{EXPERT}.down_proj",
}
SHARED_EXPERT_NAMES: dict[str, str] = {
    "shared_expert.mlp.gate": "mlp.shared_expert.gate_proj",
    "shared_expert.mlp.up": "mlp.shared_expert.up_proj",
    "shared_expert.mlp.down": "mlp.shared_expert.down_proj",
    "shared_expert.gate": "mlp.shared_expert_gate",
}


def read_experts(fields: ConfigFields, default: int) -> dict[str, Any]:
    """Return our fields for the number of experts, and of those that a token goes to.

    Args:
        fields: The whole config.json.
        default: The number of experts if no field says it.

    Raises:
        UserError: The two names of the number say different things, or a token goes to more
            experts than there are.
    """
    kind = whole(1, MOST_EXPERTS)
    given = {name: fields.get(name, kind) for name in _NAMES if name in fields.raw}
    n_experts = next(iter(given.values()), default)
    for name, value in given.items():
        if value != n_experts:
            raise fields.refusal(name, value, f"{n_experts}, as in {_NAMES[0]}")
    experts_per_token = fields.get("num_experts_per_tok", kind)
    if experts_per_token > n_experts:
        raise fields.refusal(
            "num_experts_per_tok", experts_per_token, f"no more than the {n_experts} experts"
        )
    return {"n_experts": n_experts, "experts_per_token": experts_per_token}


def write_experts(config: DecoderConfig, name: str) -> dict[str, Any]:
    """Return the fields of the two numbers, the first under the name that the family gives it."""
    return {name: config.n_experts, "num_experts_per_tok": config.experts_per_token}


def read_shared_expert(fields: ConfigFields) -> dict[str, Any]:
    """Return our field for the width of the expert that all tokens share."""
    return {"shared_d_ff": fields.get("shared_expert_intermediate_size", SIZE)}


def write_shared_expert(config: DecoderConfig) -> dict[str, Any]:
    """Return the field of that width."""
    return {"shared_expert_intermediate_size": config.shared_d_ff}


def read_dense_layers(fields: ConfigFields) -> dict[str, Any]:
    """Return our fields for the layers without experts, and for their width.

    A layer is dense if `mlp_only_layers` lists its number, counted from 0, or unless
    `decoder_sparse_step` divides it, counted from 1.

    Raises:
        UserError: No layer has experts.
    """
    n_layers = fields.get("num_hidden_layers", whole(1, MOST_LAYERS))
    step = fields.get("decoder_sparse_step", whole(1, MOST_LAYERS))
    listed = fields.get("mlp_only_layers", list_of(whole(0, MOST_LAYERS))) or []
    width = fields.get("intermediate_size", SIZE)
    dense = [layer in listed or (layer + 1) % step > 0 for layer in range(n_layers)]
    if all(dense):
        raise fields.refusal("mlp_only_layers", listed, "at least one layer with experts")
    if not any(dense):
        return {}
    letters = "".join("D" if is_dense else "E" for is_dense in dense)
    return {"expert_layers": shortest_pattern(letters), "dense_d_ff": width}


def write_dense_layers(config: DecoderConfig) -> dict[str, Any]:
    """Return the fields of the layers without experts."""
    numbers = [i for i, has_experts in enumerate(config.layers_with_experts()) if not has_experts]
    # Without dense layers their width says nothing, but readers want a number.
    width = config.dense_d_ff or config.d_ff
    return {"mlp_only_layers": numbers, "decoder_sparse_step": 1, "intermediate_size": width}
