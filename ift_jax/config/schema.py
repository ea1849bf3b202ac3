"""The frozen config of a run.

A config file (`configs/*.py`) fills an `ml_collections.ConfigDict` of the same fields;
`ift_jax.config.files` turns one into the other. Each field states its default, help text, choices
and bounds where it is defined: in data.py, model.py, encoder_decoder.py, lora.py,
preference.py and training.py beside this file.
"""

import dataclasses

from ift_jax.config.data import DataConfig, FormatConfig, RowLengths, TokenizerConfig
from ift_jax.config.encoder_decoder import EncoderDecoderConfig, ModelConfig
from ift_jax.config.fields import field
from ift_jax.config.lora import LoraConfig
from ift_jax.config.model import DecoderConfig
from ift_jax.config.preference import PreferenceConfig
from ift_jax.config.training import (
    EvaluationConfig,
    LossConfig,
    MeshConfig,
    OptimizerConfig,
    TrainConfig,
)

__all__ = [
    "Config",
    "DataConfig",
    "DecoderConfig",
    "EncoderDecoderConfig",
    "EvaluationConfig",
    "FormatConfig",
    "LoraConfig",
    "LossConfig",
    "MeshConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PreferenceConfig",
    "RowLengths",
    "TokenizerConfig",
    "TrainConfig",
]


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole run."""

    seed: int = field(0, "Seed of fresh parameters, the data order and dropout.", minimum=0)
    tokenizer: TokenizerConfig = TokenizerConfig()
    format: FormatConfig = FormatConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = DecoderConfig()
    lora: LoraConfig = LoraConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    loss: LossConfig = LossConfig()
    preference: PreferenceConfig = PreferenceConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    mesh: MeshConfig = MeshConfig()

    @property
    def row_lengths(self) -> RowLengths:
        """Tokens that a row of a batch has room for, in the encoder and in the decoder."""
        return self.data.row_lengths(self.model.architecture)
