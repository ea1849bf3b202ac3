"""`config.json` as released models have it, with the fields and spelling of transformers 4."""

import dataclasses
import math

import pytest

from ift_jax.config.checks import check_run
from ift_jax.config.schema import Config, DataConfig, DecoderConfig, EncoderDecoderConfig
from ift_jax.errors import UserError
from ift_jax.interop.hugging_face_config import from_hugging_face, to_hugging_face

COMMON = dict(
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=8,
    num_attention_heads=4,
    vocab_size=256,
    max_position_embeddings=512,
    torch_dtype="bfloat16",
    use_cache=True,
    attention_dropout=0.0,
    initializer_range=0.02,
    transformers_version="4.47.1",
    bos_token_id=1,
    eos_token_id=2,
)
RELEASED = {
    "smollm2": (
        dict(
            model_type="llama", architectures=["LlamaForCausalLM"], is_llama_config=True,
            rope_interleaved=False, rope_scaling=None, rope_theta=100000, attention_bias=False,
            mlp_bias=False, hidden_act="silu", pretraining_tp=1, num_key_value_heads=2,
            rms_norm_eps=1e-5, tie_word_embeddings=True, pad_token_id=2,
            **{"transformers.js_config": {"dtype": "q4"}},
        ),
        dict(rope_theta=1e5, n_kv_heads=2, norm_eps=1e-5, tied_embedding=True),
    ),
    "llama 3.2": (
        dict(
            model_type="llama", num_key_value_heads=2, head_dim=16, hidden_act="silu",
            rms_norm_eps=1e-5, rope_theta=500000.0, tie_word_embeddings=True,
            rope_scaling=dict(
                rope_type="llama3", factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0,
                original_max_position_embeddings=8192,
            ),
        ),
        dict(
            rope_theta=5e5, n_kv_heads=2, norm_eps=1e-5, tied_embedding=True,
            rope_scaling="llama3", rope_factor=32.0, rope_original_length=8192,
        ),
    ),
    "llama, scaled in the spelling of early releases": (
        dict(model_type="llama", rope_scaling={"type": "linear", "factor": 2}),
        dict(rope_scaling="linear", rope_factor=2.0),
    ),
    "qwen2.5, with a window that is switched off": (
        dict(
            model_type="qwen2", num_key_value_heads=4, sliding_window=32768,
            use_sliding_window=False, max_window_layers=21, tie_word_embeddings=True,
        ),
        dict(qkv_bias=True, tied_embedding=True),
    ),
    "mistral 0.1": (
        dict(model_type="mistral", num_key_value_heads=4, sliding_window=128),
        dict(sliding_window=128),
    ),
    "gemma 2": (
        dict(
            model_type="gemma2", head_dim=32, num_key_value_heads=2, hidden_act="gelu_pytorch_tanh",
            hidden_activation="gelu_pytorch_tanh", query_pre_attn_scalar=16, sliding_window=128,
            attn_logit_softcapping=50.0, final_logit_softcapping=30.0,
            cache_implementation="hybrid",
        ),
        dict(
            head_dim=32, n_kv_heads=2, activation="gelu_tanh", norm_offset=1.0,
            norm_placement="both", scale_embedding=True, query_scale=0.25, attention_softcap=50.0,
            final_softcap=30.0, sliding_window=128, global_every=2, tied_embedding=True,
        ),
    ),
    "gemma 3": (
        dict(
            model_type="gemma3_text", head_dim=32, num_key_value_heads=1,
            hidden_activation="gelu_pytorch_tanh", query_pre_attn_scalar=32, sliding_window=128,
            sliding_window_pattern=6, rope_theta=1000000, rope_local_base_freq=10000,
            rope_scaling={"rope_type": "linear", "factor": 8.0}, attn_logit_softcapping=None,
        ),
        dict(
            head_dim=32, n_kv_heads=1, activation="gelu_tanh", norm_offset=1.0,
            norm_placement="both", scale_embedding=True, qk_norm="head", sliding_window=128,
            global_every=6, rope_theta=1e6, rope_local_theta=1e4, rope_scaling="linear",
            rope_factor=8.0, tied_embedding=True,
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RELEASED)
def test_released_decoders(name):
    fields, differs = RELEASED[name]
    want = DecoderConfig(
        **dict(
            vocab_size=256,
            max_length=512,
            d_model=64,
            n_layers=8,
            n_heads=4,
            n_kv_heads=4,
            head_dim=16,
            d_ff=96,
            tied_embedding=False,
        )
        | differs
    )
    assert from_hugging_face(COMMON | fields, name) == want
    assert from_hugging_face(to_hugging_face(want).fields, "again") == want


def test_flan_t5():
    fields = dict(
        model_type="t5",
        d_model=64,
        d_kv=16,
        d_ff=96,
        num_layers=2,
        num_heads=4,
        vocab_size=256,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        dropout_rate=0.1,
        decoder_start_token_id=0,
        pad_token_id=0,
        n_positions=512,
        is_encoder_decoder=True,
        dense_act_fn="gelu_new",
        is_gated_act=True,
        output_past=True,
        task_specific_params={"summarization": {"num_beams": 4}},
    )
    want = EncoderDecoderConfig(
        vocab_size=256,
        d_model=64,
        head_dim=16,
        d_ff=96,
        n_encoder_layers=2,
        n_decoder_layers=2,
        n_heads=4,
    )
    assert from_hugging_face(fields, "flan") == want
    assert from_hugging_face(to_hugging_face(want).fields, "again") == want
    with pytest.raises(UserError, match="feed_forward_proj is 'gated-silu'"):
        from_hugging_face(fields | {"feed_forward_proj": "gated-silu"}, "flan")


def test_a_model_that_no_family_can_express_is_not_written():
    config = DecoderConfig(vocab_size=256, norm_placement="post", qk_norm="head_after_rope")
    with pytest.raises(UserError, match="no Hugging Face family has .*norm_placement"):
        to_hugging_face(config)
    local = DecoderConfig(vocab_size=256, sliding_window=8, global_every=3, norm_offset=0.5)
    with pytest.raises(UserError, match="no Hugging Face family has .*the nearest differs in "):
        to_hugging_face(local)


def test_texts_of_a_model_with_longrope_have_its_first_length_at_most():
    scaling = dict(type="su", short_factor=[1.0] * 8, long_factor=[2.0] * 8)
    fields = COMMON | dict(
        model_type="phi3", original_max_position_embeddings=128, rope_scaling=scaling
    )
    config = from_hugging_face(fields, "phi")
    assert (config.rope_scaling, config.max_length, config.positions) == ("longrope", 512, 128)
    assert config.rope_attention_factor == pytest.approx((1 + math.log(4) / math.log(128)) ** 0.5)
    run = Config(model=config, data=DataConfig(mixture="m", max_length=129))
    run = dataclasses.replace(run, train=dataclasses.replace(run.train, steps=1, epochs=0.0))
    run = dataclasses.replace(run, tokenizer=dataclasses.replace(run.tokenizer, path="t"))
    with pytest.raises(UserError, match="data.max_length: 129 is more than the 128 positions"):
        check_run(run)
    short = fields | {"rope_scaling": scaling | {"short_factor": [1.0] * 7}}
    with pytest.raises(UserError, match="rope_short_factors: expected 8 numbers.*got 7"):
        from_hugging_face(short, "phi")


def test_any_list_of_layers_is_read_and_written_back():
    mixed = [*["sliding_attention"] * 3, *["full_attention"] * 5]
    fields = COMMON | RELEASED["gemma 3"][0] | {"layer_types": mixed}
    config = from_hugging_face(fields, "mixed")
    assert (config.global_every, config.layer_pattern) == (0, "LLLGGGGG")
    assert to_hugging_face(config).fields["layer_types"] == mixed
    repeated = fields | {"layer_types": ["full_attention", "sliding_attention"] * 4}
    assert from_hugging_face(repeated, "repeated").layer_pattern == "GL"
    with pytest.raises(UserError, match="layer_types is .*expected 8 items"):
        from_hugging_face(fields | {"layer_types": mixed[1:]}, "short")
