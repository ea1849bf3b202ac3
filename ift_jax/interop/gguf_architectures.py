"""The architectures of GGUF files that are read and written, and their tensors' names."""

from collections.abc import Mapping
from typing import NamedTuple

ROPE_FACTORS = "rope_freqs.weight"  # What each RoPE frequency is divided by.

# Their tensors -> Hugging Face's; those of layer i are in "blk.{i}." and in "model.layers.{i}.".
OUTER_NAMES: Mapping[str, str] = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_LAYER_NAMES: Mapping[str, str] = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_QK_NORM_NAMES: Mapping[str, str] = {
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
}
_LLAMA_BIASES: Mapping[str, str] = {
    "attention_bias": "self_attn.q_proj",
    "mlp_bias": "mlp.up_proj",
}


class GgufArchitecture(NamedTuple):
    """An architecture.

    Attributes:
        name: The value of `general.architecture`, with which the model's fields begin.
        model_type: The `model_type` of such a model in a Hugging Face folder.
        layer_names: The tensors of a layer -> Hugging Face's modules.
        interleaved: Whether rows of queries and keys that RoPE pairs follow each other; Hugging
            Face has all first ones of a head before all second ones.
        bias_fields: The fields of a `config.json` that say which modules of a layer have biases ->
            one of those modules. A file says it by its tensors alone.
    """

    name: str
    model_type: str
    layer_names: Mapping[str, str] = _LAYER_NAMES
    interleaved: bool = False
    bias_fields: Mapping[str, str] = {}


ARCHITECTURES: Mapping[str, GgufArchitecture] = {
    architecture.name: architecture
    for architecture in (
        GgufArchitecture("llama", "llama", interleaved=True, bias_fields=_LLAMA_BIASES),
        GgufArchitecture("qwen2", "qwen2"),
        GgufArchitecture("qwen3", "qwen3", {**_LAYER_NAMES, **_QK_NORM_NAMES}),
    )
}
