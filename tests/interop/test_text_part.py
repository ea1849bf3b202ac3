"""The text part of a folder of images and text: its logits, and what is left out or refused."""

import json

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
KINDS = {
    "gemma3": lambda: transformers.Gemma3Config(
        text_config=TEXT | dict(head_dim=16, query_pre_attn_scalar=16, sliding_window=5),
        vision_config=VISION,
        mm_tokens_per_image=4,
    ),
    "mistral3": lambda: transformers.Mistral3Config(
        text_config=TEXT | dict(model_type="ministral3", head_dim=16),
        vision_config=VISION | dict(head_dim=8),
        tie_word_embeddings=False,
    ),
}


def write_multimodal(folder, kind):
    """A folder as `transformers` writes it, and the model."""
    model = transformers.AutoModelForImageTextToText.from_config(
        KINDS[kind](), attn_implementation="eager"
    )
    torch.manual_seed(0)
    hf.randomize(model).save_pretrained(folder)
    write_tokenizer(folder)
    return model


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
    assert all("vision_tower" in n or "projector" in n for n in source.ignored_tensors)
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
