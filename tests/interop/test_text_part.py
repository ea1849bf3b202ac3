"""The text part of a folder of images and text: its logits, and what is left out or refused."""

import json
import re

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference models are torch modules")
transformers = pytest.importorskip("transformers", reason="the reference models live there")

from ift_jax.checkpoint.open_model import open_model_source  # noqa: E402
from ift_jax.errors import UserError  # noqa: E402
from ift_jax.interop.hugging_face_config import to_hugging_face  # noqa: E402
from ift_jax.models import build_model  # noqa: E402
from tests.interop.folders import edit_json, write_tokenizer  # noqa: E402
from tests.models import hugging_face as hf  # noqa: E402
from tests.models.architectures import jitted_logits, pack  # noqa: E402

TEXT = {name: value for name, value in hf.SIZES.items() if name != "attn_implementation"}
VISION = dict(
    hidden_size=16,
    intermediate_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    image_size=28,
    patch_size=14,
)
QWEN3_5_VISION = dict(
    hidden_size=16,
    intermediate_size=16,
    depth=1,
    num_heads=2,
    out_hidden_size=TEXT["hidden_size"],
    num_position_embeddings=16,
)
GEMMA4_VISION = dict(
    hidden_size=16,
    intermediate_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=2,
    head_dim=8,
    position_embedding_size=16,
)
GEMMA4_AUDIO = dict(
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    subsampling_conv_channels=[4, 4],
    output_proj_dims=16,
)
LINEAR = dict(
    head_dim=16,
    layer_types=["linear_attention", "full_attention", "linear_attention"],
    linear_num_key_heads=2,
    linear_num_value_heads=4,
    linear_key_head_dim=8,
    linear_value_head_dim=12,
)
KINDS = {
    "gemma3": lambda: transformers.Gemma3Config(
        text_config=TEXT | dict(head_dim=16, query_pre_attn_scalar=16, sliding_window=5),
        vision_config=VISION,
        mm_tokens_per_image=4,
    ),
    "gemma4": lambda: transformers.Gemma4Config(
        text_config=TEXT
        | dict(
            head_dim=16,
            global_head_dim=24,
            num_kv_shared_layers=1,
            layer_types=["sliding_attention", "full_attention", "full_attention"],
            hidden_size_per_layer_input=8,
            vocab_size_per_layer_input=hf.VOCAB,
            sliding_window=5,
        ),
        vision_config=GEMMA4_VISION,
        audio_config=GEMMA4_AUDIO,
    ),
    "gemma4_unified": lambda: transformers.Gemma4UnifiedConfig(
        text_config=TEXT
        | dict(head_dim=16, global_head_dim=24, attention_k_eq_v=True, sliding_window=5),
        vision_config=dict(mm_embed_dim=TEXT["hidden_size"], mm_posemb_size=8),
        audio_config=dict(audio_embed_dim=16),
    ),
    "mistral3": lambda: transformers.Mistral3Config(
        text_config=TEXT | dict(model_type="ministral3", head_dim=16),
        vision_config=VISION | dict(head_dim=8),
        tie_word_embeddings=False,
    ),
    "qwen3_5": lambda: transformers.Qwen3_5Config(
        text_config=TEXT | LINEAR, vision_config=QWEN3_5_VISION
    ),
    "qwen3_5_moe": lambda: transformers.Qwen3_5MoeConfig(
        text_config=TEXT
        | LINEAR
        | dict(
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=20,
            shared_expert_intermediate_size=28,
        ),
        vision_config=QWEN3_5_VISION,
    ),
}


def write_multimodal(folder, kind):
    """A folder as `transformers` writes it, and the model."""
    model = transformers.AutoModelForImageTextToText.from_config(
        KINDS[kind](), attn_implementation="eager"
    )
    torch.manual_seed(0)
    hf.randomize(model).save_pretrained(folder)
    if kind == "qwen3_5_moe":
        _stack_experts(folder / "model.safetensors", model)
    write_tokenizer(folder)
    return model


def _stack_experts(file, model):
    """The experts as Qwen's releases hold them, and `transformers` has them in memory."""
    from safetensors.torch import load_file, save_file

    tensors = {name: each for name, each in load_file(file).items() if ".experts." not in name}
    in_memory = model.state_dict()
    stacked = {name: each for name, each in in_memory.items() if ".mlp.experts." in name}
    assert len(stacked) == 6 and len(tensors) + len(stacked) <= len(in_memory)
    save_file(tensors | stacked, file)


@pytest.mark.parametrize("kind", KINDS)
def test_the_text_part_has_the_logits_of_the_whole_model(kind, tmp_path, capsys):
    reference = write_multimodal(tmp_path, kind)
    source = open_model_source(str(tmp_path))
    config = source.config.model
    model = build_model(config)
    params = source.load_params(model, hf.mesh())
    tokens = np.random.default_rng(0).integers(11, hf.VOCAB, 29).tolist()
    ours = jitted_logits(model)(params, pack([[tokens]], 29))
    with torch.no_grad():
        theirs = reference(input_ids=torch.tensor([tokens])).logits.numpy()
    assert np.abs(theirs).max() > 1
    np.testing.assert_allclose(ours, theirs, atol=2e-4, rtol=0)

    assert f"{len(source.ignored_tensors)} tensors of images not read" in capsys.readouterr().err
    assert all(
        re.search("_tower|projector|visual|embed_(vision|audio)|vision_embedder", n)
        for n in source.ignored_tensors
    )
    written = to_hugging_face(config, model_type=source.model_type()).fields
    assert written["model_type"] == json.loads((tmp_path / "config.json").read_text())[
        "text_config"
    ].get("model_type", "gemma3_text")


def test_the_names_that_transformers_has_in_memory_are_read_too(tmp_path):
    from safetensors.numpy import load_file, save_file

    write_multimodal(tmp_path, "gemma3")
    before = open_model_source(str(tmp_path))
    file = tmp_path / "model.safetensors"
    renamed = {
        "model." + name.replace("language_model.model.", "language_model."): values
        for name, values in load_file(file).items()
    }
    save_file(renamed, file)
    after = open_model_source(str(tmp_path))
    assert after.dtypes() == before.dtypes() and after.dtypes()
    assert len(after.ignored_tensors) == len(before.ignored_tensors)


def test_a_field_that_nothing_reads_is_refused(tmp_path):
    write_multimodal(tmp_path, "gemma3")
    edit_json(tmp_path / "config.json", audio_config={"layers": 3})
    with pytest.raises(UserError, match="audio_config = .* is not supported; gemma3 models"):
        open_model_source(str(tmp_path))
