"""`config.json` as released models have it, with the fields and spelling of transformers 4."""

import dataclasses
import math

import pytest

from ift_jax.config.checks import check, check_run
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
LOCAL, GLOBAL = "sliding_attention", "full_attention"
GEMMA_4 = dict(
    attention_bias=False, enable_moe_block=False, expert_intermediate_size=None,
    final_logit_softcapping=30.0, global_head_dim=32, head_dim=16,
    hidden_activation="gelu_pytorch_tanh", num_experts=None, rms_norm_eps=1e-6,
    rope_parameters={
        GLOBAL: {"partial_rotary_factor": 0.25, "rope_theta": 1e6, "rope_type": "proportional"},
        LOCAL: {"rope_theta": 1e4, "rope_type": "default"},
    },
    sliding_window=128, tie_word_embeddings=True, top_k_experts=None,
)  # fmt: skip
OURS_OF_GEMMA_4 = dict(
    n_kv_heads=1, activation="gelu_tanh", norm_placement="both", qk_norm="head", value_norm=True,
    query_scale=1.0, final_softcap=30.0, scale_embedding=True, layer_scalar=True,
    sliding_window=128, rope_theta=1e6, rope_local_theta=1e4, rope_scaling="proportional",
    rope_proportion=0.25, global_head_dim=32, tied_embedding=True,
)  # fmt: skip
COHERE = dict(
    norm="layer", norm_eps=1e-5, norm_placement="parallel", rope_interleaved=True,
    tied_embedding=True,
)  # fmt: skip
COMMAND_A = dict(
    model_type="cohere2", attention_bias=False, cache_implementation="hybrid", layer_norm_eps=1e-5,
    layer_switch=4, logit_scale=0.25, num_key_value_heads=2,
    order_of_interleaved_layers="local_attn_first", position_embedding_type="rope_gptj",
    rope_scaling=None, rope_theta=50000, rotary_pct=1.0, sliding_window=128,
    sliding_window_pattern=4, use_embedding_sharing=True, use_gated_activation=True,
    use_parallel_block=True, use_parallel_embedding=False, use_qk_norm=False,
)  # fmt: skip
RELEASED = {
    "gemma 4 E2B": (
        GEMMA_4
        | dict(
            model_type="gemma4_text", num_key_value_heads=1, num_global_key_value_heads=None,
            attention_k_eq_v=False, hidden_size_per_layer_input=24, num_kv_shared_layers=4,
            use_double_wide_mlp=True, vocab_size_per_layer_input=256,
            use_bidirectional_attention=None, layer_types=[LOCAL, GLOBAL] * 4,
        ),
        OURS_OF_GEMMA_4
        | dict(
            layer_input_dim=24, kv_shared_layers=4, double_d_ff_where_shared=True, global_every=2,
        ),
    ),
    "gemma 4 31B": (
        GEMMA_4
        | dict(
            model_type="gemma4_text", num_key_value_heads=2, num_global_key_value_heads=1,
            attention_k_eq_v=True, hidden_size_per_layer_input=0, num_kv_shared_layers=0,
            use_double_wide_mlp=False, vocab_size_per_layer_input=256,
            use_bidirectional_attention="vision",
        ),
        OURS_OF_GEMMA_4
        | dict(
            n_kv_heads=2, global_kv_heads=1, global_values_are_keys=True, layer_pattern="LLLLLGLG",
        ),
    ),
    "gemma 4 in the spelling of transformers 5.23": (
        {name: value for name, value in GEMMA_4.items() if name != "global_head_dim"}
        | dict(
            model_type="gemma4_text", num_key_value_heads=2, hidden_size_per_layer_input=0,
            per_layer_config={"5": {"head_dim": 32, "num_key_value_heads": 1},
                              "7": {"head_dim": 32, "num_key_value_heads": 1}},
        ),
        OURS_OF_GEMMA_4 | dict(n_kv_heads=2, global_kv_heads=1, layer_pattern="LLLLLGLG"),
    ),
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
    "apertus 8B": (
        dict(
            model_type="apertus", num_key_value_heads=2, attention_bias=False, hidden_act="xielu",
            hidden_dropout=0.0, mlp_bias=False, post_norm=False, qk_norm=True, rms_norm_eps=1e-5,
            rope_theta=12000000, tie_word_embeddings=False,
            rope_scaling={
                "factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                "original_max_position_embeddings": 8192, "rope_type": "llama3", "type": "llama3",
            },
        ),
        dict(
            n_kv_heads=2, activation="xielu", mlp_gated=False, norm_eps=1e-5, qk_norm="head",
            rope_theta=1.2e7, rope_scaling="llama3", rope_factor=8.0, rope_original_length=8192,
        ),
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
    "pythia": (
        dict(
            model_type="gpt_neox", hidden_act="gelu", layer_norm_eps=1e-5, rotary_emb_base=10000,
            rotary_pct=0.25, tie_word_embeddings=False, use_parallel_residual=True,
        ),
        dict(
            norm="biased_layer", norm_eps=1e-5, norm_placement="parallel_norms", activation="gelu",
            mlp_gated=False, qkv_bias=True, output_bias=True, mlp_bias=True, rope_dim=4,
        ),
    ),
    "command r": (
        dict(
            model_type="cohere", attention_bias=False, layer_norm_eps=1e-5, logit_scale=0.0625,
            model_max_length=2048, pretraining_tp=1, rope_theta=8000000.0,
        ),
        COHERE | dict(max_length=2048, rope_theta=8e6, logits_scaling=16.0),
    ),
    "command r+": (
        dict(
            model_type="cohere", attention_bias=False, layer_norm_eps=1e-5, logit_scale=0.5,
            num_key_value_heads=2, rope_theta=75000000.0, use_qk_norm=True,
        ),
        COHERE | dict(n_kv_heads=2, rope_theta=7.5e7, logits_scaling=2.0, qk_norm="each_head"),
    ),
    "command a": (
        COMMAND_A,
        COHERE
        | dict(
            n_kv_heads=2, rope_theta=5e4, logits_scaling=4.0, sliding_window=128, global_every=4,
            rope_layers="RRRN",
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


@pytest.mark.parametrize(("name", "value"), [("num_key_value_heads", 2), ("head_dim", 32)])
def test_heads_that_no_gpt_neox_has_are_refused_by_name(name, value):
    with pytest.raises(UserError, match=f"{name} is {value}; expected "):
        from_hugging_face(COMMON | RELEASED["pythia"][0] | {name: value}, "config.json")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("position_embedding_type", "rope_neox"),
        ("rotary_pct", 0.5),
        ("use_embedding_sharing", False),
        ("use_parallel_block", False),
        ("use_qk_norm", True),
    ],
)
def test_another_model_than_command_a_is_refused_by_name(name, value):
    with pytest.raises(UserError, match=f"{name} is .*; expected "):
        from_hugging_face(COMMON | COMMAND_A | {name: value}, "config.json")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            dict(enable_moe_block=True, num_experts=128, top_k_experts=8),
            "enable_moe_block is true; expected false: experts beside a feed-forward layer",
        ),
        (dict(use_bidirectional_attention="all"), "use_bidirectional_attention is 'all'; expected"),
        (dict(altup_num_inputs=4), "altup_num_inputs = 4 is not supported; gemma4_text models"),
        (dict(vocab_size_per_layer_input=200), "vocab_size_per_layer_input is 200; expected at"),
        (dict(num_kv_shared_layers=8), "config.model.kv_shared_layers: 8 of 8 layers; expected a"),
        (dict(rope_parameters={LOCAL: {}}), "rope_parameters is .* expected one object for full_"),
        (
            dict(rope_parameters=GEMMA_4["rope_parameters"] | {LOCAL: {"rope_type": "linear"}}),
            "rope_parameters.sliding_attention: rope_type is 'linear'; expected 'default'",
        ),
        (
            dict(per_layer_config={"0": {"head_dim": 32}}),
            "per_layer_config is .* the same object for each full_attention layer",
        ),
        (
            dict(per_layer_config={"1": {"head_dim": 32}}),
            "per_layer_config is .* the same object for each full_attention layer",
        ),
    ],
)
def test_other_variants_of_gemma_4_are_refused_by_name(fields, message):
    with pytest.raises(UserError, match=message):
        from_hugging_face(COMMON | RELEASED["gemma 4 E2B"][0] | fields, "config.json")


T5_RELEASED = {
    "flan-t5": (dict(model_type="t5", dense_act_fn="gelu_new"), {}),
    "byt5": (dict(model_type="t5", tokenizer_class="ByT5Tokenizer"), {}),
    "ul2": (
        dict(model_type="t5", feed_forward_proj="gated-silu", dense_act_fn="silu"),
        dict(activation="gated_silu"),
    ),
    "umt5": (dict(model_type="umt5", scalable_attention=True), dict(bias_per_layer=True)),
}


@pytest.mark.parametrize("name", T5_RELEASED)
def test_released_t5s(name):
    own, differs = T5_RELEASED[name]
    fields = dict(
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
        **differs,
    )
    assert from_hugging_face(fields | own, name) == want
    family, written = to_hugging_face(want)
    assert family.model_type == own["model_type"]
    assert from_hugging_face(written, "again") == want
    started = from_hugging_face(fields | own | {"decoder_start_token_id": 5}, name)
    assert started == dataclasses.replace(want, decoder_start_id=5)
    assert to_hugging_face(started).fields["decoder_start_token_id"] == 5
    with pytest.raises(UserError, match="feed_forward_proj is 'gated-relu'; expected 'relu' or"):
        from_hugging_face(fields | own | {"feed_forward_proj": "gated-relu"}, name)


def test_a_model_that_no_family_can_express_is_not_written():
    config = DecoderConfig(vocab_size=256, norm_placement="post", qk_norm="head_after_rope")
    with pytest.raises(UserError, match="no Hugging Face family has .*norm_placement"):
        to_hugging_face(config)
    local = DecoderConfig(vocab_size=256, sliding_window=8, global_every=3, norm_offset=0.5)
    with pytest.raises(UserError, match="no Hugging Face family has .*the nearest differs in "):
        to_hugging_face(local)


def test_texts_of_a_model_with_longrope_may_be_longer_than_its_first_length():
    scaling = dict(type="su", short_factor=[1.0] * 8, long_factor=[2.0] * 8)
    fields = COMMON | dict(
        model_type="phi3", original_max_position_embeddings=128, rope_scaling=scaling
    )
    config = from_hugging_face(fields, "phi")
    assert (config.rope_scaling, config.max_length) == ("longrope", 512)
    assert (config.rope_original_length, config.rope_long_factors) == (128, (2.0,) * 8)
    assert config.rope_attention_factor == pytest.approx((1 + math.log(4) / math.log(128)) ** 0.5)
    run = Config(model=config, data=DataConfig(mixture="m", max_length=512))
    run = dataclasses.replace(run, train=dataclasses.replace(run.train, steps=1, epochs=0.0))
    run = dataclasses.replace(run, tokenizer=dataclasses.replace(run.tokenizer, path="t"))
    assert check_run(run).data.max_length == 512
    longer = dataclasses.replace(run, data=dataclasses.replace(run.data, max_length=513))
    with pytest.raises(UserError, match="data.max_length: 513 is more than the 512 positions"):
        check_run(longer)
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


def test_xielu_is_for_layers_without_a_gate():
    gated = Config(model=DecoderConfig(activation="xielu"))
    with pytest.raises(UserError, match="activation: .xielu. is for .* without a gate"):
        check(gated)


def test_a_misspelled_model_type_is_answered_with_the_nearest_one():
    def refusal(model_type):
        with pytest.raises(
            UserError, match=r"expected one of the \d\d that .*, qwen3_5_text"
        ) as error:
            from_hugging_face({"model_type": model_type}, "config.json")
        return str(error.value).partition("; did you mean ")[2].strip("'?")

    misspelled = {"LLaMA": "llama", "Qwen-3": "qwen3", "gpt-oss": "gpt_oss", "mixtrall": "mixtral"}
    assert {name: refusal(name) for name in misspelled} == misspelled
    # A sibling is another model, and its name is no slip.
    assert {refusal(name) for name in ("gemma3n", "qwen2_vl", "glm4v", "phi", "mamba", 3)} == {""}
