"""Small random models for tests, and one of them as a run would leave it on disk."""

import dataclasses
import functools
import importlib
from typing import Any

import jax
import numpy as np

from ift_jax.checkpoint import run_description
from ift_jax.checkpoint.manager import Checkpoints
from ift_jax.config.schema import (
    Config,
    DataConfig,
    DecoderConfig,
    EncoderDecoderConfig,
    TokenizerConfig,
    TrainConfig,
)
from ift_jax.decoding import Generator
from ift_jax.evaluation.text_generator import TextGenerator
from ift_jax.models import build_model
from ift_jax.models.model import Model, Params
from tests.text.small_tokenizers import sentencepiece_tokenizer

# The smallest models with everything that the train step's tests need, without a tokenizer.
VOCAB = 40
ARCHITECTURES = {
    "decoder": DecoderConfig(
        vocab_size=VOCAB, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, d_ff=24
    ),
    "encoder_decoder": EncoderDecoderConfig(
        vocab_size=VOCAB,
        d_model=16,
        n_encoder_layers=2,
        n_decoder_layers=2,
        n_heads=4,
        head_dim=8,
        d_ff=24,
    ),
}
# The config of a run, whose vocabulary is that of a small tokenizer.
CONFIG = Config(
    model=DecoderConfig(
        vocab_size=480,
        max_length=128,
        d_model=16,
        n_layers=1,
        n_heads=2,
        n_kv_heads=1,
        head_dim=8,
        d_ff=24,
    ),
    data=DataConfig(mixture="none", max_length=64),
    tokenizer=TokenizerConfig(path="none"),
    train=TrainConfig(steps=1),
)


def random_params(model: Model, std: float = 0.4) -> Params:
    """Parameters drawn by NumPy: compiling an initializer takes longer than most tests.

    Weights of norms, and of what is not trained, are near 1. The others are large enough that the
    likeliest token changes from step to step.
    """
    rng = np.random.default_rng(0)

    def weight(shape, axes):
        norm = axes[-1] in ("norm", "constant")
        return rng.normal(float(norm), 0.1 if norm else std, shape.shape).astype(np.float32)

    return jax.tree.map(weight, model.shapes, model.logical_axes)


@functools.cache
def random_model() -> tuple[Model, Params]:
    """The model of `CONFIG` and its parameters."""
    model = build_model(CONFIG.model)
    return model, random_params(model, 0.5)


def open_random_model(*stop_strings, **fields) -> tuple[TextGenerator, Generator]:
    """Open the random model in its own format; the fields replace those of its config."""
    model, params = random_model()
    if fields:
        model = build_model(dataclasses.replace(CONFIG.model, **fields))
    config = dataclasses.replace(CONFIG, model=model.config)
    text_generator = TextGenerator(config, sentencepiece_tokenizer(), model, stop_strings)
    return text_generator, text_generator.generator(params)


def compile_one_program(monkeypatch) -> None:
    """Pads prompts of all lengths alike, so that one compiled program serves them."""
    for name in ("request_batch", "growing_text"):
        module = importlib.import_module(f"ift_jax.decoding.{name}")
        monkeypatch.setattr(module, "bucket", lambda length: 128 if length <= 128 else 192)


def write_workdir(path, config: Config = CONFIG, params: Any = None) -> str:
    """Writes a workdir without a run; returns its path."""
    run_description.save_description(str(path), config, sentencepiece_tokenizer())
    checkpoints = Checkpoints(str(path))
    checkpoints.save(0, {"params": random_model()[1] if params is None else params})
    checkpoints.wait()
    checkpoints.close()
    return str(path)
