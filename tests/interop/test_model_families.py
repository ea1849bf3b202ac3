"""The registry of model families: a class in one file is all that a family needs."""

import dataclasses
import importlib.resources

import pytest

from ift_jax.config.schema import DecoderConfig
from ift_jax.errors import UserError
from ift_jax.interop import families, model_family
from ift_jax.interop.decoder_family import DecoderFamily
from ift_jax.interop.hugging_face_config import (
    family_of_fields,
    from_hugging_face,
    to_hugging_face,
)
from ift_jax.interop.model_family import register_family, registered_families
from ift_jax.interop.tensor_table import tensor_table
from ift_jax.models import build_model


def test_every_file_registers_a_family():
    files = {
        file.name.removesuffix(".py")
        for file in importlib.resources.files(families).iterdir()
        if file.name.endswith(".py") and file.name != "__init__.py"
    }
    modules = {type(family).__module__ for family in registered_families()}
    assert files and {f"{families.__name__}.{file}" for file in files} == modules


@pytest.mark.parametrize("family", registered_families(), ids=lambda family: family.model_type)
def test_a_family_has_the_names_of_transformers(family):
    transformers = pytest.importorskip("transformers")
    config_class = type(transformers.AutoConfig.for_model(family.model_type))
    if isinstance(family, DecoderFamily):
        architecture = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[config_class]
    else:
        architecture = transformers.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING[config_class]
    assert architecture.__name__ == family.architecture


def test_a_class_is_all_that_a_new_family_needs(monkeypatch):
    known = family_of_fields({"model_type": "olmo2"}, "here")
    monkeypatch.setattr(model_family, "_FAMILIES", dict(model_family._FAMILIES))

    @register_family
    class Scaled(type(known)):
        """OLMo 2 without norms on queries and keys, whose embeddings are scaled."""

        model_type = "scaled"
        architecture = "ScaledForCausalLM"
        fixed = {"norm_placement": "post", "scale_embedding": True}
        defaults = type(known).defaults | {"rms_norm_eps": 1e-5, "head_dim": 8}

        def tensor_names(self, config):
            names = super().tensor_names(config)
            outside = {**names.outside, "embedding": "model.words.weight"}
            return dataclasses.replace(names, outside=outside)

    sizes = dict(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    config = from_hugging_face(sizes | {"model_type": "scaled"}, "here")
    assert config.scale_embedding and config.qk_norm == "none"
    assert (config.norm_eps, config.head_dim) == (1e-5, 8)  # Its own defaults.
    family, fields = to_hugging_face(config)
    assert family.model_type == fields["model_type"] == "scaled"
    assert from_hugging_face(fields, "again") == config
    names = [name for entry in tensor_table(build_model(config), family) for name in entry.names]
    assert "model.words.weight" in names and len(set(names)) == len(names)
    assert "model.layers.1.post_feedforward_layernorm.weight" in names
    with pytest.raises(UserError, match="scaled models are read without that field"):
        from_hugging_face(fields | {"residual_multiplier": 2.0}, "here")
    with pytest.raises(ValueError, match="'scaled' is registered twice"):
        register_family(Scaled)


def test_a_plain_model_is_exported_as_llama():
    assert to_hugging_face(DecoderConfig(vocab_size=128)).family.model_type == "llama"
    windowed = DecoderConfig(vocab_size=128, sliding_window=8)
    assert to_hugging_face(windowed).family.model_type == "mistral"
