"""Types of which some models are plain decoders: these are read, the others refused by name."""

import pytest

from ift_jax.config.schema import DecoderConfig
from ift_jax.errors import UserError
from ift_jax.interop.hugging_face_config import from_hugging_face, to_hugging_face

GRANITE_4_MICRO = dict(
    model_type="granitemoehybrid",
    architectures=["GraniteMoeHybridForCausalLM"],
    attention_bias=False,
    attention_dropout=0.0,
    attention_multiplier=0.015625,
    bos_token_id=1,
    embedding_multiplier=12,
    eos_token_id=1,
    hidden_act="silu",
    hidden_size=64,
    init_method="mup",
    initializer_range=0.1,
    intermediate_size=96,
    layer_types=["attention"] * 4,
    logits_scaling=10,
    mamba_chunk_size=256,
    mamba_conv_bias=True,
    mamba_d_conv=4,
    mamba_d_head=32,
    mamba_d_state=256,
    mamba_expand=2,
    mamba_n_groups=1,
    mamba_n_heads=4,
    mamba_proj_bias=False,
    max_position_embeddings=512,
    normalization_function="rmsnorm",
    num_attention_heads=4,
    num_experts_per_tok=0,
    num_hidden_layers=4,
    num_key_value_heads=2,
    num_local_experts=0,
    output_router_logits=False,
    pad_token_id=0,
    position_embedding_type="rope",
    residual_multiplier=0.22,
    rms_norm_eps=1e-5,
    rope_scaling=None,
    rope_theta=10000000,
    router_aux_loss_coef=0.01,
    shared_intermediate_size=80,
    tie_word_embeddings=True,
    torch_dtype="bfloat16",
    transformers_version="4.56.0",
    use_cache=True,
    vocab_size=256,
)


@pytest.mark.parametrize(("positions", "rope_layers"), [("rope", ""), ("nope", "N")])
def test_granite_4_without_states_and_experts_is_a_granite(positions, rope_layers):
    fields = GRANITE_4_MICRO | {"position_embedding_type": positions}
    config = from_hugging_face(fields, "config.json")
    assert config == DecoderConfig(
        vocab_size=256,
        max_length=512,
        d_model=64,
        n_layers=4,
        n_heads=4,
        n_kv_heads=2,
        head_dim=16,
        d_ff=80,
        norm_eps=1e-5,
        rope_theta=1e7,
        rope_layers=rope_layers,
        query_scale=0.015625,
        embedding_multiplier=12.0,
        residual_multiplier=0.22,
        logits_scaling=10.0,
        tied_embedding=True,
    )
    family, written = to_hugging_face(config, model_type="granitemoehybrid")
    assert family.model_type == "granitemoehybrid"
    assert from_hugging_face(written, "again") == config
    # With RoPE it is a plain Granite as well, which any reader knows.
    plain = to_hugging_face(config).family.model_type
    assert plain == ("granite" if positions == "rope" else "granitemoehybrid")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("layer_types", ["mamba", *["attention"] * 3], "'attention' for each of 4 layers: states"),
        ("layer_types", ["attention"] * 3, "'attention' for each of 4 layers"),
        ("layer_types", None, "'attention' for each of 4 layers"),
        ("num_local_experts", 62, "0: experts are not supported"),
        ("normalization_function", "layernorm", "'rmsnorm'"),
        ("position_embedding_type", "alibi", "'rope' or 'nope' or null"),
        ("mlp_bias", True, "false"),
    ],
)
def test_another_granite_4_is_refused_by_name(name, value, expected):
    with pytest.raises(UserError) as caught:
        from_hugging_face(GRANITE_4_MICRO | {name: value}, "config.json")
    message = str(caught.value)
    assert message.startswith(f"config.json: {name} is ") and f"expected {expected}" in message
    assert len(message) < 300
    absent = {key: field for key, field in GRANITE_4_MICRO.items() if key != "num_local_experts"}
    with pytest.raises(UserError, match="num_local_experts is 8; expected 0"):
        from_hugging_face(absent, "config.json")


@pytest.mark.parametrize(
    ("head_dim", "alpha", "expected"),
    [
        (2, 1000, "head_dim is 2; expected more, as RoPE has an alpha"),
        (16, 1e308, "rope_scaling: alpha is 1e\\+308; expected a number above 0, at most 1e9"),
    ],
)
def test_an_alpha_that_stretches_the_base_beyond_all_numbers_is_refused(head_dim, alpha, expected):
    fields = dict(
        model_type="hunyuan_v1_dense", vocab_size=256, hidden_size=64, intermediate_size=96,
        num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=512,
        head_dim=head_dim, rope_scaling={"type": "dynamic", "alpha": alpha},
    )  # fmt: skip
    with pytest.raises(UserError, match=f"config.json: {expected}"):
        from_hugging_face(fields, "config.json")
