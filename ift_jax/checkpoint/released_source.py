"""Released models: Hugging Face folders and GGUF files."""

import os
import sys
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from ift_jax.checkpoint.model_source import ModelSource
from ift_jax.config.checks import check
from ift_jax.config.schema import Config, EvaluationConfig, TokenizerConfig
from ift_jax.errors import counted
from ift_jax.interop.generation_config import read_generation_config, sampling_defaults
from ift_jax.interop.hugging_face_config import family_of_fields, from_hugging_face
from ift_jax.interop.hugging_face_weights import Convert, keep_as_it_is, load_params
from ift_jax.interop.model_family import ModelFamily
from ift_jax.interop.safetensors_files import DTYPES, Tensor, open_safetensors
from ift_jax.interop.text_part import is_multimodal, is_of_images, text_part
from ift_jax.io.json_reader import read_json_object
from ift_jax.io.typed_fields import TypedFields, whole
from ift_jax.models.model import Model, Params
from ift_jax.text.tokenizers.base import Tokenizer
from ift_jax.text.tokenizers.byt5 import is_byt5
from ift_jax.text.tokenizers.load import load_tokenizer, tokenizer_from_files

# The number of sentinels that T5's tokenizer has unless its config says otherwise.
T5_EXTRA_IDS = 100
MOST_EXTRA_IDS = 100_000


class _ReleasedSource(ModelSource):
    """A model whose tensors have the names and layout that Hugging Face gives them."""

    def __init__(
        self,
        path: str,
        config: Config,
        tensors: Mapping[str, Tensor],
        family: ModelFamily[Any],
        sampling_defaults: Mapping[str, Any],
    ):
        self.path = path
        self.config = check(config)
        self._tensors = tensors
        self._family = family  # Knows the tensors' names.
        self._sampling_defaults = sampling_defaults

    def load_params(self, model: Model, mesh: Mesh, convert: Convert = keep_as_it_is) -> Params:
        return load_params(model, mesh, self._tensors, self.path, self._family, convert)

    def dtypes(self) -> Mapping[str, str]:
        names = {dtype: name for name, dtype in DTYPES.items()}
        return {name: names[tensor.dtype] for name, tensor in self._tensors.items()}

    def model_type(self) -> str:
        return self._family.model_type

    def sampling_defaults(self) -> Mapping[str, Any]:
        return self._sampling_defaults


class HuggingFaceSource(_ReleasedSource):
    """A Hugging Face folder with safetensors files.

    Attributes:
        is_text_part: Whether this is the text part of a model of images and text.
        ignored_tensors: The tensors of such a model that are not of its text part.
        n_dequantized: The number of tensors that the folder holds quantized.
    """

    is_text_part = False
    ignored_tensors: tuple[str, ...] = ()
    n_dequantized = 0

    def __init__(self, folder: str, config_file: str, fields: dict[str, Any]):
        """Open the folder.

        Args:
            folder: The folder.
            config_file: Its `config.json`.
            fields: The contents of that file.

        Raises:
            UserError: The model is of an unknown kind, or its tensors cannot be read.
        """
        self.is_text_part = is_multimodal(fields)
        packed = () if self.is_text_part else family_of_fields(fields, config_file).packed_dtypes
        stored: Mapping[str, Tensor] = open_safetensors(folder, packed)
        if self.is_text_part:
            fields, stored, self.ignored_tensors = text_part(fields, stored, config_file)
        else:
            self.ignored_tensors = tuple(filter(is_of_images, stored))
        model = from_hugging_face(fields, config_file)
        family = family_of_fields(fields, config_file)
        tensors = family.unpack(stored, folder)
        self.n_dequantized = len(tensors.keys() - stored.keys()) if packed else 0
        extra_ids = _extra_ids(folder, model.architecture)
        generation = read_generation_config(folder)
        config = Config(
            model=model,
            tokenizer=TokenizerConfig(path=folder, extra_ids=extra_ids),
            evaluation=EvaluationConfig(stop_ids=_stop_ids(generation, fields)),
        )
        super().__init__(folder, config, tensors, family, sampling_defaults(generation))

    def tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.config.tokenizer.path, self.config.tokenizer)

    def load_params(self, model: Model, mesh: Mesh, convert: Convert = keep_as_it_is) -> Params:
        notes = []
        if self.ignored_tensors:
            notes.append(f"{counted(len(self.ignored_tensors), 'tensor')} of images not read")
        if self.n_dequantized:
            notes.append(
                f"{counted(self.n_dequantized, 'tensor')} in MXFP4 read as bfloat16; what is "
                "trained and exported is not quantized"
            )
        for note in notes if jax.process_index() == 0 else ():
            print(f"{self.path}: {note}", file=sys.stderr)
        return super().load_params(model, mesh, convert)


class GgufSource(_ReleasedSource):
    """A GGUF file, which holds weights and tokenizer."""

    def __init__(self, path: str):
        """Open the file.

        Raises:
            UserError: The file cannot be read, or holds an unknown kind of model.
        """
        from ift_jax.interop.gguf import open_gguf  # Slow to import, for the start of every run.

        gguf = open_gguf(path)
        config = Config(
            model=from_hugging_face(gguf.fields, path),
            evaluation=EvaluationConfig(stop_ids=gguf.stop_ids),
        )
        family = family_of_fields(gguf.fields, path)
        super().__init__(path, config, gguf.tensors, family, gguf.generation)
        self._tokenizer_files = gguf.tokenizer_files

    def tokenizer(self) -> Tokenizer:
        return tokenizer_from_files(self._tokenizer_files, self.path)


def _extra_ids(folder: str, architecture: str) -> int:
    """Return how many sentinels T5's tokenizer adds to the pieces of its SentencePiece model."""
    if os.path.exists(os.path.join(folder, "tokenizer.json")) or is_byt5(folder):
        return 0  # The tokenizer has sentinels of its own.
    path = os.path.join(folder, "tokenizer_config.json")
    fields = TypedFields(read_json_object(path) if os.path.exists(path) else {}, path)
    default = T5_EXTRA_IDS if architecture == "encoder_decoder" else 0
    return int(fields.get("extra_ids", whole(0, MOST_EXTRA_IDS), default))


def _stop_ids(generation: TypedFields, config_fields: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the ids that end an answer: of generation_config.json, or else of config.json.

    Args:
        generation: The fields of the one, whose types are checked.
        config_fields: The fields of the other, whose types are checked too.
    """
    eos = generation.raw.get("eos_token_id", config_fields.get("eos_token_id"))
    if eos is None:
        return ()
    return tuple(eos) if isinstance(eos, list) else (eos,)
