"""`config.json` of every model family; `transformers`' own configuration classes judge."""

import functools
import importlib.util
import json
import random
from pathlib import Path
from typing import Any

from tests.robustness.group import Case, Group
from tests.robustness.json_mutations import spoiled_json

_DECODER = dict(
    vocab_size=160,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    rms_norm_eps=1e-5,
    rope_theta=10000.0,
    attention_bias=False,
    tie_word_embeddings=True,
    attention_dropout=0.0,
    initializer_range=0.02,
    bos_token_id=2,
    eos_token_id=1,
    pad_token_id=0,
    torch_dtype="bfloat16",
    use_cache=True,
    transformers_version="4.47.1",
)
_GEMMA = _DECODER | dict(
    head_dim=16,
    hidden_activation="gelu_pytorch_tanh",
    query_pre_attn_scalar=16,
    sliding_window=64,
    attn_logit_softcapping=50.0,
    final_logit_softcapping=30.0,
)
_T5 = dict(
    vocab_size=160,
    d_model=48,
    d_kv=12,
    d_ff=80,
    num_layers=2,
    num_decoder_layers=3,
    num_heads=4,
    relative_attention_num_buckets=16,
    relative_attention_max_distance=24,
    layer_norm_epsilon=1e-6,
    dropout_rate=0.1,
    feed_forward_proj="gated-gelu",
    tie_word_embeddings=False,
    pad_token_id=0,
    eos_token_id=1,
    decoder_start_token_id=0,
    is_encoder_decoder=True,
    initializer_factor=1.0,
)
_LLAMA3 = dict(
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=64,
)
_LOCAL = ["sliding_attention", "full_attention"] * 2
# Small files as released models have them, in the spelling of transformers 4 and of 5.
RELEASED: dict[str, dict[str, Any]] = {
    "llama": _DECODER | dict(model_type="llama", hidden_act="silu", mlp_bias=False),
    "llama 3.1": _DECODER | dict(model_type="llama", head_dim=12, rope_scaling=_LLAMA3),
    "llama in 5": _DECODER
    | dict(model_type="llama", rope_parameters={"rope_type": "linear", "factor": 2.0}),
    "mistral": _DECODER | dict(model_type="mistral", head_dim=12, sliding_window=64),
    "qwen2": _DECODER
    | dict(model_type="qwen2", use_sliding_window=False, sliding_window=64, max_window_layers=2),
    "qwen2, local": _DECODER
    | dict(model_type="qwen2", use_sliding_window=True, sliding_window=64, max_window_layers=0),
    "qwen3": _DECODER
    | dict(model_type="qwen3", head_dim=16, sliding_window=None, max_window_layers=4),
    "olmo2": _DECODER | dict(model_type="olmo2", hidden_act="silu"),
    "gemma2": _GEMMA | dict(model_type="gemma2", hidden_act="gelu_pytorch_tanh"),
    "gemma2 in 5": _GEMMA | dict(model_type="gemma2", layer_types=_LOCAL),
    "gemma3": _GEMMA
    | dict(model_type="gemma3_text", sliding_window_pattern=2, rope_local_base_freq=1e4),
    "gemma3 in 5": _GEMMA
    | dict(
        model_type="gemma3_text",
        layer_types=_LOCAL,
        rope_parameters={
            "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    ),
    "gemma4": {name: value for name, value in _DECODER.items() if name != "rope_theta"}
    | dict(
        model_type="gemma4_text",
        head_dim=16,
        hidden_activation="gelu_pytorch_tanh",
        sliding_window=64,
        layer_types=_LOCAL,
        num_kv_shared_layers=2,
        hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=160,
        per_layer_config={"1": {"head_dim": 24}, "3": {"head_dim": 24}},
    ),
    "t5": _T5 | dict(model_type="t5"),
    "t5 1.0": _T5 | dict(model_type="t5", feed_forward_proj="relu", tie_word_embeddings=True),
    "ul2": _T5 | dict(model_type="t5", feed_forward_proj="gated-silu"),
    "mt5": _T5 | dict(model_type="mt5"),
    "umt5": _T5 | dict(model_type="umt5", scalable_attention=True),
}


class HuggingFaceConfig(Group):
    """A config.json is read, its fields are checked, and its model is built, without weights."""

    def make(self, rng: random.Random, folder: Path) -> Case:
        name = rng.choice(sorted(RELEASED))
        content, change = spoiled_json(RELEASED[name], rng)
        path = folder / "config.json"
        path.write_bytes(content)
        return Case(f"{name}: {change}", path)

    def read(self, case: Case) -> Any:
        from ift_jax.config.checks import check
        from ift_jax.config.schema import Config
        from ift_jax.interop.hugging_face_config import from_hugging_face
        from ift_jax.io.json_reader import read_json_object
        from ift_jax.models import build_model

        fields = read_json_object(str(case.path))
        config = check(Config(model=from_hugging_face(fields, str(case.path)))).model
        # Building a model takes a while, so each shape is built once.
        _n_params(build_model, config)
        return config

    def complaint(self, case: Case, value: Any) -> str:
        if importlib.util.find_spec("transformers") is None:
            return ""
        from ift_jax.errors import UserError
        from ift_jax.interop.hugging_face_config import from_hugging_face

        fields = json.loads(case.path.read_bytes().decode("utf-8-sig"))
        try:
            theirs = _their_class(fields["model_type"]).from_dict(_as_typed(fields))
        except Exception as error:  # Any of theirs is a refusal.
            return f"transformers refuses it: {error}"[:500]
        described = theirs.to_dict()
        if fields["model_type"] == "umt5":  # transformers takes each for tied; releases are not.
            described["tie_word_embeddings"] = fields.get("tie_word_embeddings", True)
        try:
            want = from_hugging_face(described, "theirs")
        except UserError as error:
            return f"what transformers makes of it is refused: {error}"
        return "" if want == value else f"transformers reads {want}; we read {value}"


@functools.lru_cache(4096)
def _n_params(build: Any, config: Any) -> int:
    return build(config).n_params


@functools.cache
def _their_class(model_type: str) -> Any:
    from transformers import AutoConfig

    return type(AutoConfig.for_model(model_type))


# Fields in which JSON may write 8 for 8.0; transformers 5 wants the latter.
_REAL = (
    "rms_norm_eps", "initializer_range", "attn_logit_softcapping", "final_logit_softcapping",
    "layer_norm_epsilon", "initializer_factor",
)  # fmt: skip


def _as_typed(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields in transformers 5's types where ours are wider by intent."""
    from ift_jax.interop.ignored_fields import IGNORED_FIELDS

    # Null in a field that changes no logits is nothing.
    typed = {
        name: value
        for name, value in fields.items()
        if value is not None or name not in IGNORED_FIELDS
    }
    for name in _REAL:
        if type(typed.get(name)) is int:
            typed[name] = float(typed[name])
    scalar = typed.get("query_pre_attn_scalar")
    if isinstance(scalar, float) and scalar == int(scalar):
        typed["query_pre_attn_scalar"] = int(scalar)
    return typed


GROUP = HuggingFaceConfig()
