"""Shapes of published models, as a recipe sets them."""

import pytest

from ift_jax.config.files import default_config, from_dict
from ift_jax.config.model_shapes import MODEL_SHAPES, set_model_shape
from ift_jax.errors import UserError
from ift_jax.models.model import Model

# Parameters in billions, as published. LLaMA counts its embeddings; so does T5.
PARAMETERS = {
    "llama-7b": 6.7, "llama-13b": 13.0, "llama-65b": 65.2, "llama-2-7b": 6.7, "llama-2-13b": 13.0,
    "llama-2-70b": 69.0, "llama-3.1-8b": 8.0, "llama-3.1-70b": 70.6, "gpt-3-1.3b": 1.3,
    "gpt-3-6.7b": 6.7, "qwen3-30b-a3b": 30.5, "t5-small": 0.06, "t5-base": 0.22, "t5-large": 0.74,
    "t5-3b": 2.85, "qwen3.5-0.8b": 0.75, "qwen3.5-2b": 1.88, "qwen3.5-4b": 4.2, "qwen3.5-9b": 8.95,
    "qwen3.5-27b": 26.9, "qwen3.5-35b-a3b": 34.7, "gemma-4-12b": 11.9, "gemma-4-31b": 30.7,
    # Text parts with the tables of all layers; 2.3 and 4.5 billion without them, as published.
    "gemma-4-e2b": 4.63, "gemma-4-e4b": 7.46,
    "t5-11b": 11.3, "t5-v1_1-small": 0.077, "t5-v1_1-base": 0.248, "t5-v1_1-large": 0.783,
    "t5-v1_1-xl": 2.85, "t5-v1_1-xxl": 11.1, "byt5-small": 0.3, "byt5-base": 0.582,
    "byt5-large": 1.23, "byt5-xl": 3.74, "byt5-xxl": 12.9, "ul2": 19.5,
    "t5gemma-2-270m-270m": 0.37, "t5gemma-2-1b-1b": 1.7, "t5gemma-2-4b-4b": 7.1,
    # As their shapes give them: for these only rounded figures are published.
    "umt5-small": 0.307, "umt5-base": 0.592, "umt5-xl": 3.77, "umt5-xxl": 13.0,
    "t5gemma-2b-2b": 5.6, "t5gemma-9b-2b": 12.3, "t5gemma-9b-9b": 20.3,
}  # fmt: skip


@pytest.mark.parametrize("name", MODEL_SHAPES)
def test_a_shape_has_the_published_number_of_parameters(name):
    config = default_config(MODEL_SHAPES[name]["architecture"])
    set_model_shape(config, name)
    model = Model(from_dict(config.to_dict(), trains=False).model)
    if name in PARAMETERS:
        assert model.n_params / 1e9 == pytest.approx(PARAMETERS[name], rel=0.02)
    else:
        assert name == "lamda-137b" and model.n_params > 1e11


def test_a_shape_leaves_precision_and_start_alone():
    config = default_config("decoder")
    config.model.init_from = "somewhere"
    config.model.dtype = "bfloat16"
    config.model.remat = "full"
    config.model.dropout = 0.5
    set_model_shape(config, "llama-2-13b")
    kept = (config.model.init_from, config.model.dtype, config.model.remat, config.model.dropout)
    assert kept == ("somewhere", "bfloat16", "full", 0.5)


def test_mistakes_are_named():
    config = default_config("decoder")
    with pytest.raises(UserError, match=r"'llama-2-7B'; did you mean 'llama-2-7b'\?"):
        set_model_shape(config, "llama-2-7B")
    with pytest.raises(UserError, match=r"needs default_config\('encoder_decoder'\)"):
        set_model_shape(config, "t5-v1_1-xl")
