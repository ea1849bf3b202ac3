"""What transformers 5 makes of a tokenizer beside a Qwen2 model, and the way around it.

`AutoTokenizer` gives a folder with `model_type` "qwen2" to Qwen2's own class, whatever its
`tokenizer_config.json` says (MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS in transformers 5.23). That
class takes vocabulary and merges from `tokenizer.json` and replaces the rest by Qwen2's pipeline:
another tokenizer then gives other ids, and loses every letter that is not in a byte-level alphabet.

A model of Qwen2's shape is also one of Llama's whose output projections have a bias of zero, and
`AutoTokenizer` takes a Llama's tokenizer as the folder describes it.
"""

import dataclasses
import json

import jax.numpy as jnp
import tokenizers
from tokenizers import decoders, normalizers, pre_tokenizers

from ift_jax.config.schema import DecoderConfig, ModelConfig
from ift_jax.errors import UserError
from ift_jax.interop.hugging_face_config import HuggingFaceModel, to_hugging_face
from ift_jax.interop.sample_texts import SAMPLE_TEXTS
from ift_jax.interop.tensor_table import leaf_at
from ift_jax.io.json_reader import parse_json
from ift_jax.models.model import Model, Params, build_model

MODEL_TYPE = "qwen2"
# PRETOKENIZE_REGEX of transformers/models/qwen2/tokenization_qwen2.py.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def is_read_as_written(definition: bytes) -> bool:
    """Whether Qwen2's own class gives the ids of a `tokenizer.json`.

    Args:
        definition: The file.
    """
    fields = parse_json(definition, "tokenizer.json")
    model = fields["model"]
    if model["type"] != "BPE":
        return False
    flags = ("unk_token", "dropout", "continuing_subword_prefix", "end_of_word_suffix")
    plain = {name: model[name] for name in ("type", "vocab", "merges")}
    plain |= dict.fromkeys(flags) | {"fuse_unk": False, "byte_fallback": False}
    written = tokenizers.Tokenizer.from_str(definition.decode())
    as_qwen2 = tokenizers.Tokenizer.from_str(json.dumps({**fields, "model": plain}))
    as_qwen2.normalizer = normalizers.NFC()
    as_qwen2.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    as_qwen2.decoder = decoders.ByteLevel()
    for text in SAMPLE_TEXTS:
        ids = written.encode(text, add_special_tokens=False).ids
        if as_qwen2.encode(text, add_special_tokens=False).ids != ids:
            return False
        if as_qwen2.decode(ids) != written.decode(ids):
            return False
    return True


@dataclasses.dataclass(frozen=True)
class ExportedModel:
    """A model as it is exported.

    Attributes:
        model: The model: the one that was given, or one with biases of zero.
        params: Its parameters.
        target: Its family and `config.json`.
        note: What a user should know about the choice; "": nothing.
    """

    model: Model
    params: Params
    target: HuggingFaceModel
    note: str = ""


def choose_family(
    model: Model, params: Params, definition: bytes, max_length: int, model_type: str = ""
) -> ExportedModel:
    """Return a model as a family in whose folder `transformers` reads the tokenizer as written.

    Args:
        model: The model, with stacked layers.
        params: Its parameters.
        definition: The `tokenizer.json` that will lie beside it; empty if there will be none.
        max_length: The positions of a model whose config has no bound.
        model_type: The family to choose if it has such models.

    Raises:
        UserError: There is no such family.
    """
    target = to_hugging_face(model.config, max_length, model_type)
    is_as_written = definition and is_read_as_written(definition)
    if target.family.model_type != MODEL_TYPE or is_as_written:
        return ExportedModel(model, params, target)
    config = with_output_bias(model.config)
    try:
        target = to_hugging_face(config, max_length)
    except UserError as error:
        raise UserError(
            "config.model: transformers reads the tokenizer beside a Qwen2 model as Qwen2's own, "
            f"which gives other ids than this one, and as another family: {error}"
        ) from error
    note = (
        f"exported as {target.family.model_type}, with output biases of zero: beside a Qwen2 "
        "model, transformers would read this tokenizer as Qwen2's own"
    )
    return ExportedModel(build_model(config), _with_zero_bias(model, params), target, note)


def with_output_bias(config: ModelConfig) -> DecoderConfig:
    """Return the config of a decoder with a bias in its output projections."""
    assert isinstance(config, DecoderConfig)  # Only a decoder is a Qwen2.
    return dataclasses.replace(config, output_bias=True)


def _with_zero_bias(model: Model, params: Params) -> Params:
    """Return parameters with a bias of zero for each output projection."""
    weight = leaf_at(params, "layers.attention.out.weight")  # Layers, in, out.
    bias = jnp.zeros((weight.shape[0], weight.shape[-1]), weight.dtype)
    layers = params["layers"]
    attention = layers["attention"]
    out = {**attention["out"], "bias": bias}
    return {**params, "layers": {**layers, "attention": {**attention, "out": out}}}
