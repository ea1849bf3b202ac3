"""Reward models: Hugging Face folders of a decoder with one number as its output.

`transformers` calls them `LlamaForSequenceClassification`, `Qwen3ForSequenceClassification` and so
on, with `num_labels` 1: the decoder without a language-model head, and a projection of the final
state of the last token, `score.weight`.
"""

import dataclasses
import os
from typing import Any

import numpy as np

from ift_jax.checkpoint.released_source import HuggingFaceSource
from ift_jax.checkpoint.run_description import CONFIG_FILE
from ift_jax.config.schema import DecoderConfig
from ift_jax.errors import UserError
from ift_jax.io.json_reader import read_json_object

SCORE = "score.weight"  # The tensor of the scalar head: one row, as wide as the model.
_EXPECTED = "expected a sequence-classification model with one label, such as \
LlamaForSequenceClassification with num_labels 1"


class RewardModelSource(HuggingFaceSource):
    """The folder of a reward model; its decoder is read as any other.

    Attributes:
        score_D: The scalar head, float32 [model width].
        pad_id: The padding token of its `config.json`, which never is the token that is scored; -1
            if there is none.
    """

    def __init__(self, folder: str):
        """Open the folder; read no weights but the head's.

        Raises:
            UserError: It is not the folder of a decoder with a scalar head.
        """
        config_file = os.path.join(folder, CONFIG_FILE)
        if not os.path.exists(config_file):
            raise UserError(f"{folder}: no {CONFIG_FILE} here; {_EXPECTED}")
        fields = read_json_object(config_file)
        if "model_type" not in fields:
            raise UserError(f"{config_file}: no model_type here; {_EXPECTED}")
        super().__init__(folder, config_file, fields)
        model = self.config.model
        if not isinstance(model, DecoderConfig):
            raise UserError(f"{folder}: is an encoder-decoder; {_EXPECTED}")
        tensors = dict(self._tensors)
        head = tensors.pop(SCORE, None)
        if head is None:
            raise UserError(f"{folder}: no tensor {SCORE}; {_EXPECTED}")
        if head.shape != (1, model.d_model):
            raise UserError(
                f"{folder}: {SCORE} has the shape {head.shape}, expected (1, {model.d_model}): one "
                "label"
            )
        self._tensors = tensors
        self.score_D = np.asarray(head.read((slice(None), slice(None)))[0], np.float32)
        pad: Any = fields.get("pad_token_id")
        self.pad_id = -1 if pad is None else int(pad)
        # Its decoder has no head of its own, and the final states are not scaled for logits.
        headless = dataclasses.replace(model, tied_embedding=True, logits_scaling=1.0)
        self.config = dataclasses.replace(self.config, model=headless)

    def scored_place(self, ids: list[int]) -> int:
        """Return which token of a conversation is scored: the last one that is no padding token.

        That is the rule of `transformers`: where padding and end of text are one token, that of
        the end does not count.
        """
        places = [place for place, token in enumerate(ids) if token != self.pad_id]
        return places[-1] if places else 0
