"""Small random models of `transformers`, and our parameters with the same weights."""

import copy
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference models are torch modules")
transformers = pytest.importorskip("transformers", reason="the reference models live there")

from ift_jax.config.schema import MeshConfig, ModelConfig  # noqa: E402
from ift_jax.interop.hugging_face_config import (  # noqa: E402
    family_of_fields,
    from_hugging_face,
)
from ift_jax.interop.hugging_face_weights import load_params  # noqa: E402
from ift_jax.interop.safetensors_files import Tensor  # noqa: E402
from ift_jax.models import build_model  # noqa: E402
from ift_jax.sharding.mesh import make_mesh  # noqa: E402
from tests.models.relatives import LLAMA3, RELATIVES  # noqa: E402

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
GEMMA3_ROPE = {
    "full_attention": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 4.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
}
T5_SIZES = dict(
    vocab_size=VOCAB,
    d_model=40,
    d_kv=12,
    d_ff=72,
    num_heads=5,
    num_layers=2,
    num_decoder_layers=3,
    relative_attention_num_buckets=16,
    relative_attention_max_distance=24,
    dropout_rate=0.0,
    pad_token_id=0,
    eos_token_id=1,
    decoder_start_token_id=0,
    attn_implementation="eager",
)
GEMMA_STACK: dict[str, Any] = {
    name: value for name, value in SIZES.items() if name != "attn_implementation"
} | dict(
    head_dim=16,
    query_pre_attn_scalar=30,
    attn_logit_softcapping=2.0,
    final_logit_softcapping=3.0,
    sliding_window=6,
)
UNCAPPED_STACK = GEMMA_STACK | dict(
    num_key_value_heads=1,
    query_pre_attn_scalar=16,
    attn_logit_softcapping=None,
    final_logit_softcapping=None,
    sliding_window=5,
)
LOCAL_GLOBAL = ["sliding_attention", "full_attention"]
LOCAL_STACK = GEMMA_STACK | dict(
    query_pre_attn_scalar=20, attn_logit_softcapping=None, rope_parameters=GEMMA3_ROPE
)
VISION = dict(
    model_type="siglip_vision_model",
    hidden_size=16,
    intermediate_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    image_size=28,
    patch_size=14,
)
# name -> (configuration class, what differs from SIZES). Each family first in its usual shape.
DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", dict(tie_word_embeddings=False, rms_norm_eps=1e-5)),
    "llama_tied": (
        "Llama",
        dict(
            tie_word_embeddings=True,
            head_dim=20,
            attention_bias=True,
            mlp_bias=True,
            rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        ),
    ),
    "llama3": ("Llama", dict(num_key_value_heads=1, rope_parameters=LLAMA3)),
    "llama_linear": (
        "Llama",
        dict(
            num_key_value_heads=4,
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 3.0},
        ),
    ),
    "mistral": ("Mistral", dict(head_dim=12, sliding_window=5, tie_word_embeddings=False)),
    "mistral_global": (
        "Mistral",
        dict(head_dim=20, sliding_window=None, num_key_value_heads=1, tie_word_embeddings=True),
    ),
    "qwen2": ("Qwen2", dict(tie_word_embeddings=False)),
    "qwen2_local": (
        "Qwen2",
        dict(
            tie_word_embeddings=True,
            num_key_value_heads=4,
            use_sliding_window=True,
            sliding_window=4,
            max_window_layers=0,
        ),
    ),
    "qwen3": ("Qwen3", dict(head_dim=16, tie_word_embeddings=True)),
    "qwen3_odd": ("Qwen3", dict(head_dim=8, num_key_value_heads=1, attention_bias=True)),
    "olmo2": ("Olmo2", dict(rms_norm_eps=1e-6, tie_word_embeddings=False)),
    "olmo2_odd": (
        "Olmo2",
        dict(num_key_value_heads=4, attention_bias=True, tie_word_embeddings=True),
    ),
    "gemma2": (
        "Gemma2",
        dict(
            head_dim=16,
            query_pre_attn_scalar=30,
            attn_logit_softcapping=2.0,
            final_logit_softcapping=3.0,
            sliding_window=6,
        ),
    ),
    "gemma2_odd": (
        "Gemma2",
        dict(
            head_dim=8,
            num_key_value_heads=1,
            query_pre_attn_scalar=8,
            attn_logit_softcapping=None,
            final_logit_softcapping=None,
            sliding_window=4,
            tie_word_embeddings=False,
        ),
    ),
    "gemma3": (
        "Gemma3Text",
        dict(
            head_dim=16,
            query_pre_attn_scalar=20,
            sliding_window=5,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            rope_parameters=GEMMA3_ROPE,
        ),
    ),
    "gemma3_odd": (  # Fewer layers than the pattern is long: all are local.
        "Gemma3Text",
        dict(head_dim=20, num_key_value_heads=4, query_pre_attn_scalar=20, sliding_window=7),
    ),
}
T5S: dict[str, tuple[str, dict[str, Any]]] = {
    "1.0": ("T5", dict(feed_forward_proj="relu", tie_word_embeddings=True)),
    "1.1": ("T5", dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False)),
    "mt5": (
        "MT5",
        dict(
            feed_forward_proj="gated-gelu",
            num_layers=3,
            num_decoder_layers=2,
            num_heads=3,
            d_kv=20,
        ),
    ),
    "t5gemma": (
        "T5Gemma",
        dict(encoder=GEMMA_STACK | {"num_hidden_layers": 4}, decoder=GEMMA_STACK),
    ),
    "t5gemma2": (
        "T5Gemma2",
        dict(
            encoder=dict(
                text_config=LOCAL_STACK | {"num_hidden_layers": 4, "layer_types": LOCAL_GLOBAL * 2},
                vision_config=VISION,
                mm_tokens_per_image=4,
                eoi_token_index=7,  # Some texts of the tests have it.
            ),
            decoder=LOCAL_STACK | {"num_hidden_layers": 2, "layer_types": LOCAL_GLOBAL},
        ),
    ),
    # The stacks differ as in the release 9b-2b, and the head is not tied.
    "t5gemma_odd": (
        "T5Gemma",
        dict(
            encoder=UNCAPPED_STACK
            | dict(
                hidden_size=40, num_attention_heads=2, intermediate_size=56, num_hidden_layers=2
            ),
            decoder=UNCAPPED_STACK,
            tie_word_embeddings=False,
        ),
    ),
    "ul2": ("T5", dict(feed_forward_proj="gated-silu", tie_word_embeddings=False)),
    "umt5": ("UMT5", dict(num_heads=4)),
}


def has_own_head(name: str) -> bool:
    """Whether a T5 has a head of its own; transformers 5 tells it only by the weights."""
    return name in T5S and name != "1.0" and not name.startswith("t5gemma")


def as_released(model: Any) -> Any:
    """A model as its release describes it, which transformers 5 forgets.

    It takes every umT5 for tied, and scales the states before a head that is not.
    """
    if model.config.model_type == "umt5":
        model.config.tie_word_embeddings = False
    return model


@functools.cache
def reference(name: str) -> Any:
    """A float32 model with random weights, by its name in DECODERS, RELATIVES or T5S."""
    kind, fields = DECODERS.get(name) or RELATIVES.get(name) or T5S[name]
    sizes = T5_SIZES if name in T5S else SIZES
    if name.startswith("t5gemma"):  # Each stack has its own.
        sizes = dict(attn_implementation="eager", vocab_size=VOCAB)
    config = getattr(transformers, f"{kind}Config")(**sizes | copy.deepcopy(fields))
    torch.manual_seed(len(name))
    if name in T5S:
        model = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
        if has_own_head(name):
            model.lm_head.weight = torch.nn.Parameter(model.shared.weight.detach().clone())
        model = as_released(model)
    else:
        model = transformers.AutoModelForCausalLM.from_config(config)
    return randomize(model)


def randomize(model: Any) -> Any:
    """Give every weight (norms and biases too) values that would show in the output."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1 or "norm" in name:
                weight.add_(0.3 * torch.randn(weight.shape))
            elif "shared" in name or "embed" in name:
                weight.normal_(std=0.3)
            else:
                weight.normal_(std=weight.shape[1] ** -0.5)
        for name, weight in model.named_buffers():
            if name.endswith(("layer_scalar", "act_fn.beta")):
                weight.add_(0.3 * torch.randn(weight.shape))
    return model.float().eval()


def save(model: Any, folder: Path, dtype: Any = torch.float32) -> None:
    """Save a model as `transformers` does, in several shards."""
    copy.deepcopy(model).to(dtype).save_pretrained(str(folder), max_shard_size="60KB")


def tensors_of(model: Any) -> Mapping[str, Tensor]:
    """The weights of a model in memory, under the names that they have in a folder."""

    def tensor(weight: Any) -> Tensor:
        values = weight.detach().numpy()
        return Tensor(values.shape, values.dtype, lambda index: np.array(values[index]))

    return {name: tensor(weight) for name, weight in released(model, model.state_dict()).items()}


def released(model: Any, weights: dict[str, Any]) -> dict[str, Any]:
    """Tensors by the names that folders have; `transformers` 5 stacks experts in memory."""
    from transformers.core_model_loading import revert_weight_conversion

    return revert_weight_conversion(model, weights)


def mesh(**sizes: int) -> Any:
    """A mesh of as many devices as it needs; one by default."""
    n = int(np.prod(list(sizes.values()))) if sizes else 1
    return make_mesh(MeshConfig(**({"data": 1} | sizes)), jax.devices()[:n])


def reference_and_config(name: str) -> tuple[Any, ModelConfig]:
    """A reference model, and our config of it."""
    model = reference(name)
    return model, from_hugging_face(model.config.to_dict(), name)


def our_params(model: Any, config: ModelConfig) -> dict[str, Any]:
    """Our parameters with the reference's weights."""
    family = family_of_fields(model.config.to_dict(), "model")
    return load_params(build_model(config), mesh(), tensors_of(model), "model", family)


def beams(
    reference: Any, prompt: list[int], eos_ids: list[int], **options: Any
) -> list[tuple[list[int], float]]:
    """The answers to a prompt that beam search of `transformers` returns, with their scores."""
    encoder_decoder = reference.config.is_encoder_decoder
    with torch.no_grad():
        found = reference.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            use_cache=not encoder_decoder,  # As in `_greedy_of_t5`.
            eos_token_id=eos_ids,
            output_scores=True,
            return_dict_in_generate=True,
            **options,
        )
    first = 1 if encoder_decoder else len(prompt)
    answers = []
    for row, score in zip(found.sequences.tolist(), found.sequences_scores.tolist(), strict=True):
        ids = row[first:]
        ends = [n for n, token in enumerate(ids, start=1) if token in eos_ids]
        answers.append((ids[: ends[0]] if ends else ids, score))
    return answers


def greedy(reference: Any, prompts: list[list[int]], **options: Any) -> list[list[int]]:
    """The new tokens that `generate` of `transformers` finds after each prompt."""
    if reference.config.is_encoder_decoder:
        return _greedy_of_t5(reference, prompts, **options)
    new_tokens = []
    for prompt in prompts:
        ids = _generate(reference, [prompt], use_cache=True, **options)[0]
        new_tokens.append(ids[len(prompt) :])
    return new_tokens


def _greedy_of_t5(reference: Any, prompts: list[list[int]], **options: Any) -> list[list[int]]:
    """All prompts in one batch: without a cache every token costs a whole forward pass."""
    # transformers 5.23 sizes the cache by the encoder's layers, so it cannot be used.
    rows = _generate(reference, prompts, use_cache=False, **options)
    eos_id = reference.config.eos_token_id
    new_tokens = []
    for row in rows:
        ids = row[1:]  # The first decoder input is not new.
        new_tokens.append(ids[: ids.index(eos_id) + 1] if eos_id in ids else ids)
    return new_tokens


def _generate(reference: Any, prompts: list[list[int]], **options: Any) -> list[list[int]]:
    ids = torch.zeros(len(prompts), max(map(len, prompts)), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt)
        mask[row, : len(prompt)] = 1
    with torch.no_grad():
        return reference.generate(ids, attention_mask=mask, do_sample=False, **options).tolist()
