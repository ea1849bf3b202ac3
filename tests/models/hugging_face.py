"""Small random models of `transformers` and the same weights as our parameters."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference models are torch modules")
transformers = pytest.importorskip("transformers", reason="the reference models live there")

from ift_jax.config import DecoderConfig, EncoderDecoderConfig  # noqa: E402

VOCAB = 160
SIZES = dict(
    vocab_size=VOCAB,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    pad_token_id=0,
    eos_token_id=1,
    bos_token_id=2,
    attn_implementation="eager",
)
OURS: dict[str, Any] = dict(
    vocab_size=VOCAB, d_model=48, d_ff=80, n_layers=3, n_heads=4, n_kv_heads=2, head_dim=12
)


def decoder_pair(family: str) -> tuple[Any, DecoderConfig]:
    """A reference model in float32 with random weights, and our config of it."""
    make = {
        "llama": lambda: (
            transformers.LlamaConfig(**SIZES, tie_word_embeddings=False, rms_norm_eps=1e-5),
            DecoderConfig(**OURS, tied_embedding=False, norm_eps=1e-5),
        ),
        "llama_tied": lambda: (
            transformers.LlamaConfig(
                **SIZES,
                tie_word_embeddings=True,
                head_dim=20,
                attention_bias=True,
                mlp_bias=True,
                rope_parameters={"rope_type": "default", "rope_theta": 500.0},
            ),
            DecoderConfig(
                **OURS | dict(head_dim=20),
                qkv_bias=True,
                output_bias=True,
                mlp_bias=True,
                rope_theta=500.0,
            ),
        ),
        "qwen2": lambda: (
            transformers.Qwen2Config(**SIZES, tie_word_embeddings=False),
            DecoderConfig(**OURS, tied_embedding=False, qkv_bias=True),
        ),
        "qwen3": lambda: (
            transformers.Qwen3Config(**SIZES, head_dim=16, tie_word_embeddings=True),
            DecoderConfig(**OURS | dict(head_dim=16), qk_norm="head"),
        ),
        "gemma2": lambda: (
            transformers.Gemma2Config(
                **SIZES,
                head_dim=16,
                query_pre_attn_scalar=30,
                attn_logit_softcapping=2.0,
                final_logit_softcapping=3.0,
                sliding_window=6,
            ),
            DecoderConfig(
                **OURS | dict(head_dim=16),
                activation="gelu_tanh",
                norm_offset=1.0,
                norm_placement="both",
                query_scale=30**-0.5,
                attention_softcap=2.0,
                final_softcap=3.0,
                sliding_window=6,
                global_every=2,
                scale_embedding=True,
            ),
        ),
        "mistral": lambda: (
            transformers.MistralConfig(
                **SIZES, head_dim=12, sliding_window=5, tie_word_embeddings=False
            ),
            DecoderConfig(**OURS, sliding_window=5, tied_embedding=False),
        ),
        "olmo2": lambda: (
            transformers.Olmo2Config(**SIZES, rms_norm_eps=1e-6, tie_word_embeddings=False),
            DecoderConfig(**OURS, norm_placement="post", qk_norm="full", tied_embedding=False),
        ),
    }[family]
    hf_config, config = make()
    torch.manual_seed(0)
    return randomise(transformers.AutoModelForCausalLM.from_config(hf_config)), config


def t5_pair(version: str) -> tuple[Any, EncoderDecoderConfig]:
    """As `decoder_pair`: T5 "1.0" or "1.1", with odd shapes and unequal stacks."""
    old = version == "1.0"
    hf_config = transformers.T5Config(
        vocab_size=VOCAB,
        d_model=40,
        d_kv=12,
        d_ff=72,
        num_heads=5,
        num_layers=2,
        num_decoder_layers=3,
        feed_forward_proj="relu" if old else "gated-gelu",
        tie_word_embeddings=old,
        relative_attention_num_buckets=16,
        relative_attention_max_distance=24,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        attn_implementation="eager",
    )
    config = EncoderDecoderConfig(
        vocab_size=VOCAB,
        d_model=40,
        head_dim=12,
        d_ff=72,
        n_heads=5,
        n_encoder_layers=2,
        n_decoder_layers=3,
        activation="relu" if old else "gated_gelu",
        tied_embedding=old,
        relative_buckets=16,
        relative_max_distance=24,
    )
    torch.manual_seed(1)
    return randomise(transformers.T5ForConditionalGeneration(hf_config)), config


def randomise(model: Any) -> Any:
    """Gives every weight (norms and biases too) values that would show in the output."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.add_(0.3 * torch.randn(weight.shape))
            elif "shared" in name or "embed" in name:
                weight.normal_(std=0.3)
            else:
                weight.normal_(std=weight.shape[1] ** -0.5)
    return model.float().eval()


def _stack(weights: list[np.ndarray]) -> jnp.ndarray:
    return jnp.asarray(np.stack(weights))


def decoder_params(model: Any, config: DecoderConfig) -> dict[str, Any]:
    """Our parameters with the reference's weights."""
    w = {name: weight.detach().numpy() for name, weight in model.state_dict().items()}
    both = config.norm_placement == "both"
    names = {
        "attention.query": "self_attn.q_proj",
        "attention.key": "self_attn.k_proj",
        "attention.value": "self_attn.v_proj",
        "attention.out": "self_attn.o_proj",
        "attention.query_norm": "self_attn.q_norm",
        "attention.key_norm": "self_attn.k_norm",
        "mlp.gate": "mlp.gate_proj",
        "mlp.up": "mlp.up_proj",
        "mlp.down": "mlp.down_proj",
        "attention_pre_norm": "input_layernorm",
        "attention_post_norm": "post_attention_layernorm",
        "mlp_pre_norm": "pre_feedforward_layernorm" if both else "post_attention_layernorm",
        "mlp_post_norm": "post_feedforward_layernorm",
    }
    if config.norm_placement == "pre":
        del names["attention_post_norm"], names["mlp_post_norm"]
    if config.norm_placement == "post":
        del names["attention_pre_norm"], names["mlp_pre_norm"]
    layers: dict[str, Any] = {}
    for ours, theirs in names.items():
        node = layers
        for part in ours.split("."):
            node = node.setdefault(part, {})
        for kind in ("weight", "bias"):
            keys = [f"model.layers.{i}.{theirs}.{kind}" for i in range(config.n_layers)]
            if keys[0] not in w:
                continue
            if w[keys[0]].ndim == 2:
                node["weight"] = _stack([w[key].T for key in keys])
            else:
                node["scale" if "norm" in ours else "bias"] = _stack([w[key] for key in keys])
    if config.qk_norm == "none":
        del layers["attention"]["query_norm"], layers["attention"]["key_norm"]
    params = {
        "embedding": jnp.asarray(w["model.embed_tokens.weight"]),
        "layers": layers,
        "final_norm": {"scale": jnp.asarray(w["model.norm.weight"])},
    }
    if not config.tied_embedding:
        params["head"] = jnp.asarray(w["lm_head.weight"].T)
    return params


def t5_params(model: Any, config: EncoderDecoderConfig) -> dict[str, Any]:
    """Our parameters with the reference's weights."""
    w = {name: weight.detach().numpy() for name, weight in model.state_dict().items()}

    def stack(name: str, n: int) -> dict[str, Any]:
        def each(i: int, kind: str) -> Any:
            return [w[f"{name}.block.{j}.layer.{i}.{kind}.weight"] for j in range(n)]

        def attention(i: int, kind: str) -> dict[str, Any]:
            ours = {"query": "q", "key": "k", "value": "v", "out": "o"}
            return {
                our: {"weight": _stack([m.T for m in each(i, f"{kind}.{their}")])}
                for our, their in ours.items()
            }

        last = 2 if name == "decoder" else 1
        old = config.activation == "relu"
        mlp = {"up": "wi", "down": "wo"} if old else {"gate": "wi_0", "up": "wi_1", "down": "wo"}
        layers = {
            "attention": attention(0, "SelfAttention"),
            "attention_norm": {"scale": _stack(each(0, "layer_norm"))},
            "mlp_norm": {"scale": _stack(each(last, "layer_norm"))},
            "mlp": {
                our: {"weight": _stack([m.T for m in each(last, f"DenseReluDense.{their}")])}
                for our, their in mlp.items()
            },
        }
        if name == "decoder":
            layers["cross"] = attention(1, "EncDecAttention")
            layers["cross_norm"] = {"scale": _stack(each(1, "layer_norm"))}
        bias = w[f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
        return {
            "layers": layers,
            "relative_bias": jnp.asarray(bias),
            "final_norm": {"scale": jnp.asarray(w[f"{name}.final_layer_norm.weight"])},
        }

    params = {
        "embedding": jnp.asarray(w["shared.weight"]),
        "encoder": stack("encoder", config.n_encoder_layers),
        "decoder": stack("decoder", config.n_decoder_layers),
    }
    if not config.tied_embedding:
        params["head"] = jnp.asarray(w["lm_head.weight"].T)
    return params
