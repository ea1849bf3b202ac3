"""Small models of the families that differ from Llama, OLMo 2 or Gemma in a few fields."""

from typing import Any

YARN = dict(
    rope_type="yarn",
    rope_theta=500.0,
    factor=4.0,
    original_max_position_embeddings=16,
    beta_fast=4.0,
)
LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=500.0,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)
LOCAL, GLOBAL = "sliding_attention", "full_attention"
LINEAR = "linear_attention"
LINEAR_HEADS = dict(
    linear_num_key_heads=2,
    linear_num_value_heads=4,
    linear_key_head_dim=8,
    linear_value_head_dim=12,
)
ODD_LINEAR_HEADS = dict(
    linear_conv_kernel_dim=3,
    linear_num_key_heads=3,
    linear_num_value_heads=3,
    linear_key_head_dim=16,
    linear_value_head_dim=8,
)
# name -> (configuration class, what differs from `hugging_face.SIZES`), as in its DECODERS.
RELATIVES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2_late": (  # One global layer, then local ones.
        "Qwen2",
        dict(use_sliding_window=True, sliding_window=4, max_window_layers=1),
    ),
    "mistral_yarn": (  # Scaled in layers with a window too.
        "Mistral",
        dict(head_dim=12, sliding_window=5, rope_parameters=YARN),
    ),
    "gemma3_mixed": (
        "Gemma3Text",
        dict(
            head_dim=16,
            num_hidden_layers=4,
            query_pre_attn_scalar=16,
            sliding_window=5,
            layer_types=[LOCAL, GLOBAL, GLOBAL, LOCAL],
        ),
    ),
    "gemma": ("Gemma", dict(head_dim=16)),
    "gemma_odd": (
        "Gemma",
        dict(head_dim=8, num_key_value_heads=1, attention_bias=True, tie_word_embeddings=False),
    ),
    "ministral": (
        "Ministral",
        dict(
            head_dim=12,
            sliding_window=5,
            layer_types=[LOCAL, LOCAL, GLOBAL],
            tie_word_embeddings=False,
        ),
    ),
    "ministral_odd": (
        "Ministral",
        dict(
            head_dim=20,
            num_key_value_heads=1,
            sliding_window=4,
            layer_types=[GLOBAL, LOCAL, LOCAL],
            rope_parameters=YARN,
        ),
    ),
    "seed_oss": ("SeedOss", dict(head_dim=16)),
    "seed_oss_odd": (
        "SeedOss",
        dict(
            head_dim=8,
            num_key_value_heads=1,
            attention_bias=False,
            attention_out_bias=True,
            mlp_bias=True,
            tie_word_embeddings=True,
        ),
    ),
    "olmo": ("Olmo", dict(clip_qkv=0.5)),
    "olmo_odd": (
        "Olmo",
        dict(num_key_value_heads=1, attention_bias=True, tie_word_embeddings=True),
    ),
    "granite": (
        "Granite",
        dict(
            embedding_multiplier=12.0,
            residual_multiplier=0.22,
            logits_scaling=3.0,
            attention_multiplier=0.1,
            tie_word_embeddings=True,
        ),
    ),
    "granite_odd": (
        "Granite",
        dict(num_key_value_heads=1, attention_bias=True, mlp_bias=True, residual_multiplier=0.7),
    ),
    "granite4": (
        "GraniteMoeHybrid",
        dict(
            layer_types=["attention"] * 3,
            num_local_experts=0,
            shared_intermediate_size=56,
            position_embedding_type="rope",
            mamba_n_heads=4,
            embedding_multiplier=12.0,
            residual_multiplier=0.22,
            logits_scaling=3.0,
            attention_multiplier=0.1,
            tie_word_embeddings=True,
        ),
    ),
    "granite4_odd": (  # Without positions.
        "GraniteMoeHybrid",
        dict(
            layer_types=["attention"] * 3,
            num_local_experts=0,
            mamba_n_heads=4,
            num_key_value_heads=1,
            attention_bias=True,
        ),
    ),
    "gpt_neox": ("GPTNeoX", dict(num_attention_heads=6, num_key_value_heads=6)),
    "gpt_neox_odd": (
        "GPTNeoX",
        dict(
            num_attention_heads=2,
            attention_bias=False,
            hidden_act="gelu_fast",
            use_parallel_residual=False,
            tie_word_embeddings=True,
            rope_parameters={
                "rope_type": "linear",
                "rope_theta": 100.0,
                "factor": 2.0,
                "partial_rotary_factor": 0.5,
            },
        ),
    ),
    "jais2": ("Jais2", dict(num_key_value_heads=4)),
    "jais2_odd": (
        "Jais2",
        dict(
            head_dim=16,
            num_key_value_heads=1,
            attention_bias=False,
            mlp_bias=False,
            hidden_act="gelu",
            layer_norm_eps=1e-3,
            tie_word_embeddings=True,
            rope_parameters=LLAMA3,
        ),
    ),
    "smollm3": ("SmolLM3", dict(num_hidden_layers=4)),
    "smollm3_odd": (
        "SmolLM3",
        dict(
            no_rope_layers=[0, 1, 1],
            use_sliding_window=True,
            sliding_window=5,
            attention_bias=True,
            tie_word_embeddings=False,
            rope_parameters=YARN,
        ),
    ),
    "olmo3": (
        "Olmo3",
        dict(
            num_hidden_layers=4,
            sliding_window=5,
            rope_parameters={
                "full_attention": YARN,
                "sliding_attention": {"rope_type": "default", "rope_theta": 500_000.0},
            },
        ),
    ),
    "olmo3_odd": (
        "Olmo3",
        dict(
            num_key_value_heads=4,
            sliding_window=4,
            attention_bias=True,
            tie_word_embeddings=True,
            layer_types=[LOCAL, GLOBAL, GLOBAL],
        ),
    ),
    "ernie4_5": ("Ernie4_5", dict(head_dim=16)),
    "ernie4_5_odd": (
        "Ernie4_5",
        dict(head_dim=8, num_key_value_heads=1, use_bias=True, tie_word_embeddings=False),
    ),
    "helium": ("Helium", dict(head_dim=12)),
    "helium_odd": (
        "Helium",
        dict(
            head_dim=12,
            num_key_value_heads=4,
            attention_bias=True,
            mlp_bias=True,
            tie_word_embeddings=True,
            rope_parameters=YARN,
        ),
    ),
    "hunyuan_v1_dense": (
        "HunYuanDenseV1",
        dict(
            head_dim=12,
            rope_parameters={
                "rope_type": "dynamic",
                "alpha": 50.0,
                "factor": 1.0,
                "rope_theta": 100.0,
            },
        ),
    ),
    "hunyuan_v1_dense_odd": (
        "HunYuanDenseV1",
        dict(
            head_dim=8,
            num_key_value_heads=1,
            attention_bias=True,
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "dynamic", "factor": 3.0, "rope_theta": 100.0},
        ),
    ),
    "exaone4": ("Exaone4", dict(num_hidden_layers=4, sliding_window=5)),
    "exaone4_odd": (
        "Exaone4",
        dict(num_key_value_heads=1, sliding_window=None, layer_types=[GLOBAL] * 3, head_dim=20),
    ),
    "cohere": ("Cohere", dict(logit_scale=0.3)),
    "cohere_odd": (
        "Cohere",
        dict(
            num_key_value_heads=1, attention_bias=True, tie_word_embeddings=False, logit_scale=1.0
        ),
    ),
    "cohere_plus": ("Cohere", dict(logit_scale=0.3, use_qk_norm=True)),
    "cohere_plus_odd": (
        "Cohere",
        dict(
            num_key_value_heads=1,
            use_qk_norm=True,
            attention_bias=True,
            tie_word_embeddings=False,
            layer_norm_eps=1e-3,
            logit_scale=1.0,
            rope_parameters=LLAMA3,
        ),
    ),
    "cohere2": ("Cohere2", dict(num_hidden_layers=4, sliding_window=5, logit_scale=0.3)),
    "cohere2_odd": (
        "Cohere2",
        dict(
            num_key_value_heads=4,
            sliding_window=4,
            attention_bias=True,
            tie_word_embeddings=False,
            layer_types=[GLOBAL, GLOBAL, LOCAL],
            logit_scale=1.0,
        ),
    ),
    "ministral3": (
        "Ministral3",
        dict(
            head_dim=12,
            rope_parameters=YARN | dict(llama_4_scaling_beta=0.3, mscale=0.7, mscale_all_dim=1.5),
        ),
    ),
    "ministral3_odd": (
        "Ministral3",
        dict(
            head_dim=20,
            num_key_value_heads=1,
            sliding_window=5,
            tie_word_embeddings=True,
            rope_parameters=YARN | dict(llama_4_scaling_beta=0.1, truncate=False),
        ),
    ),
    "phi3": ("Phi3", dict(sliding_window=5)),
    "phi3_odd": (
        "Phi3",
        dict(
            num_key_value_heads=1,
            tie_word_embeddings=True,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 100.0,
                "partial_rotary_factor": 0.5,
            },
        ),
    ),
    "phi3_longrope": (
        "Phi3",
        dict(
            num_attention_heads=4,
            original_max_position_embeddings=23,  # Shorter than some of the texts of the tests.
            rope_parameters={
                "rope_type": "longrope",
                "rope_theta": 100.0,
                "partial_rotary_factor": 0.7,
                "short_factor": [1.0, 1.5, 2.0, 3.0],
                "long_factor": [1.0, 4.0, 6.0, 8.0],
            },
        ),
    ),
    "glm": ("Glm", dict(head_dim=12, tie_word_embeddings=False)),
    "glm_odd": (
        "Glm",
        dict(
            head_dim=20,
            num_key_value_heads=1,
            attention_bias=False,
            tie_word_embeddings=True,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 100.0,
                "partial_rotary_factor": 0.2,
            },
        ),
    ),
    "glm4": ("Glm4", dict(head_dim=16)),
    "glm4_odd": (
        "Glm4",
        dict(
            head_dim=8,
            num_key_value_heads=4,
            attention_bias=False,
            tie_word_embeddings=True,
            rope_parameters=YARN | {"partial_rotary_factor": 1.0},
        ),
    ),
    "iquestcoder": ("IQuestCoder", dict(head_dim=12)),
    "internlm3": ("InternLM3", dict(head_dim=12, attention_bias=True, mlp_bias=True)),
    "hyperclovax": (
        "HyperCLOVAX",
        dict(embedding_multiplier=3.0, residual_multiplier=0.5, logits_scaling=0.7),
    ),
    "hyperclovax_odd": (
        "HyperCLOVAX",
        dict(
            head_dim=8,
            num_key_value_heads=1,
            use_post_norm=False,
            attention_multiplier=0.2,
            attention_bias=True,
            tie_word_embeddings=True,
        ),
    ),
    "arcee_odd": ("Arcee", dict(num_key_value_heads=1, attention_bias=True, mlp_bias=True)),
    "nemotron": ("Nemotron", dict(head_dim=12, mlp_bias=True)),
    "apertus": ("Apertus", dict(rope_parameters=YARN)),
    "starcoder2_odd": ("Starcoder2", dict(sliding_window=5)),
    "granite_swa_odd": (
        "GraniteSWA",
        dict(
            num_hidden_layers=4,
            attention_multiplier=0.2,
            sliding_window=5,
            layer_types=[LOCAL, GLOBAL, LOCAL, LOCAL],
            layer_rope_theta=[100.0, 500.0, 0, 100.0],
        ),
    ),
    "cwm": (
        "Cwm",
        dict(
            head_dim=12,
            sliding_window=5,
            mlp_bias=True,
            rope_parameters=LLAMA3,
        ),
    ),
    "qwen3_moe": (
        "Qwen3Moe",
        dict(
            head_dim=12,
            num_experts=6,
            num_experts_per_tok=2,
            moe_intermediate_size=24,
            norm_topk_prob=True,
        ),
    ),
    "qwen3_moe_odd": (
        "Qwen3Moe",
        dict(
            head_dim=8,
            num_key_value_heads=1,
            num_experts=5,
            num_experts_per_tok=3,
            moe_intermediate_size=20,
            decoder_sparse_step=2,  # The first layer and the third are dense.
            attention_bias=True,
            tie_word_embeddings=True,
            use_sliding_window=True,
            sliding_window=5,
        ),
    ),
    "qwen2_moe_odd": (
        "Qwen2Moe",
        dict(
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=20,
            shared_expert_intermediate_size=28,
            mlp_only_layers=[0],
            use_sliding_window=True,
            sliding_window=5,
        ),
    ),
    "olmoe_odd": (
        "Olmoe",
        dict(num_experts=6, num_experts_per_tok=3, clip_qkv=0.5, tie_word_embeddings=True),
    ),
    "mixtral_odd": (
        "Mixtral",
        dict(head_dim=20, num_local_experts=7, num_experts_per_tok=3, sliding_window=5),
    ),
    "gpt_oss": (
        "GptOss",
        dict(
            head_dim=12,
            sliding_window=5,
            num_local_experts=5,
            num_experts_per_tok=2,
            swiglu_limit=0.7,
            swiglu_alpha=1.2,
        ),
    ),
    "flex_olmo_odd": ("FlexOlmo", dict(num_experts=4, num_experts_per_tok=2, norm_topk_prob=True)),
    "gemma4": (  # Two periods with keys and values of their own, and two that read those.
        "Gemma4Text",
        dict(
            head_dim=12,
            global_head_dim=16,
            num_hidden_layers=8,
            layer_types=[LOCAL, GLOBAL] * 4,
            sliding_window=5,
            num_kv_shared_layers=4,
            use_double_wide_mlp=True,
            hidden_size_per_layer_input=8,
            vocab_size_per_layer_input=160,
            final_logit_softcapping=3.0,
        ),
    ),
    "gemma4_odd": (  # Heads of one width, a larger table, a last layer that is made global.
        "Gemma4Text",
        dict(
            head_dim=16,
            global_head_dim=16,
            num_hidden_layers=6,
            layer_types=[GLOBAL, LOCAL, LOCAL, GLOBAL, LOCAL, LOCAL],
            sliding_window=4,
            num_kv_shared_layers=2,
            hidden_size_per_layer_input=4,
            vocab_size_per_layer_input=170,
            attention_bias=True,
            tie_word_embeddings=False,
            rope_parameters={
                GLOBAL: {"rope_type": "linear", "rope_theta": 500.0, "factor": 3.0},
                LOCAL: {"rope_type": "default", "rope_theta": 100.0},
            },
        ),
    ),
    "gemma4_unified": (
        "Gemma4UnifiedText",
        dict(
            head_dim=8,
            global_head_dim=20,
            num_hidden_layers=5,
            layer_types=[LOCAL, LOCAL, GLOBAL, LOCAL, GLOBAL],
            sliding_window=5,
            num_key_value_heads=4,
            num_global_key_value_heads=1,
            attention_k_eq_v=True,
            rope_parameters={
                GLOBAL: {
                    "rope_type": "proportional",
                    "rope_theta": 500.0,
                    "partial_rotary_factor": 0.5,
                    "factor": 2.0,
                },
                LOCAL: {"rope_type": "default", "rope_theta": 100.0},
            },
        ),
    ),
    "qwen3_5": (
        "Qwen3_5Text",
        dict(
            head_dim=16,
            layer_types=[LINEAR, GLOBAL, LINEAR],
            **LINEAR_HEADS,
        ),
    ),
    "qwen3_next": (
        "Qwen3Next",
        dict(
            head_dim=16,
            layer_types=[LINEAR, GLOBAL, LINEAR],
            **LINEAR_HEADS,
            num_experts=6,
            num_experts_per_tok=2,
            moe_intermediate_size=24,
            shared_expert_intermediate_size=20,
            mlp_only_layers=[2],
        ),
    ),
    "qwen3_5_moe_odd": (
        "Qwen3_5MoeText",
        dict(
            head_dim=8,
            layer_types=[LINEAR, LINEAR, GLOBAL],
            **ODD_LINEAR_HEADS,
            num_experts=4,
            num_experts_per_tok=3,
            moe_intermediate_size=20,
            shared_expert_intermediate_size=28,
            tie_word_embeddings=True,
        ),
    ),
    "qwen3_5_odd": (
        "Qwen3_5Text",
        dict(
            head_dim=8,
            num_key_value_heads=1,
            layer_types=[GLOBAL, GLOBAL, LINEAR],
            **ODD_LINEAR_HEADS,
            attention_bias=True,
            tie_word_embeddings=True,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 500.0,
                "partial_rotary_factor": 0.5,
            },
        ),
    ),
}
