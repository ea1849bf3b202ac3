"""Small models of the families that differ from Llama, OLMo 2 or Gemma in a few fields."""

from typing import Any

YARN = dict(
    rope_type="yarn",
    rope_theta=500.0,
    factor=4.0,
    original_max_position_embeddings=16,
    beta_fast=4.0,
)
LOCAL, GLOBAL = "sliding_attention", "full_attention"
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
            original_max_position_embeddings=64,
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
    "cwm": (
        "Cwm",
        dict(
            head_dim=12,
            sliding_window=5,
            mlp_bias=True,
            rope_parameters=dict(
                rope_type="llama3",
                rope_theta=500.0,
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=32,
            ),
        ),
    ),
}
