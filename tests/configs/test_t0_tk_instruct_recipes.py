"""The recipes of T0 and Tk-Instruct expand to the published numbers."""

import pytest

from ift_jax.config import files as config_file

SHAPES = {"3b": (2048, 5120, 32, 64, 24), "11b": (4096, 10_240, 64, 64, 24)}


@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize("system", ["t0", "tk_instruct"])
def test_shapes_of_t5_1_1(system, size):
    model = config_file.load(f"configs/{system}.py:{size}").model
    shape = (model.d_model, model.d_ff, model.n_heads, model.head_dim, model.n_encoder_layers)
    assert shape == SHAPES[size] and model.n_decoder_layers == model.n_encoder_layers
    assert (model.vocab_size, model.activation) == (32_128, "gated_gelu")
    assert not model.tied_embedding and model.dropout == 0.1


@pytest.mark.parametrize("size", SHAPES)
def test_t0(size):
    config = config_file.load(f"configs/t0.py:{size}")
    data = config.data
    optimizer = config.optimizer
    train = config.train
    assert train.batch_tokens == train.batch_size * data.inputs_length == 2**20
    assert data.targets_length == 256
    assert data.pack and train.steps == 12_200 and train.epochs == 0
    assert (optimizer.name, optimizer.learning_rate) == ("adafactor", 1e-3)
    assert (optimizer.schedule, optimizer.warmup_steps, optimizer.clip_norm) == ("constant", 0, 0)
    assert (config.loss.normalization, config.loss.z_loss) == ("sum", 1e-4)
    assert not config.format.input_eos and config.format.template == "plain"
    assert (data.mixture, data.heldout_mixture) == ("t0_train", "t0_eval_score_eval")


def test_tk_instruct_3b():
    config = config_file.load("configs/tk_instruct.py:3b")
    data = config.data
    optimizer = config.optimizer
    train = config.train
    assert (data.inputs_length, data.targets_length, data.pack) == (1024, 128, False)
    assert (train.batch_size, train.epochs, train.steps) == (16, 2.0, 0)
    assert (optimizer.name, optimizer.learning_rate) == ("adamw", 5e-5)
    assert (optimizer.schedule, optimizer.weight_decay) == ("constant", 0.0)
    assert (config.loss.normalization, config.model.dtype) == ("tokens", "bfloat16")
    assert config.evaluation.examples == 100 and config.format.input_eos
    assert data.heldout_mixture == "natural_instructions_heldout"


def test_tk_instruct_11b():
    config = config_file.load("configs/tk_instruct.py:11b")
    assert config.train.batch_tokens == 2**20 and config.train.batch_size == 1024
    assert (config.train.steps, config.optimizer.learning_rate) == (1000, 1e-5)
    assert config.optimizer.name == "adafactor" and config.data.pack
