"""A model as one GGUF file, for llama.cpp and what is built on it."""

import collections
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ift_jax.config.schema import DecoderConfig, ModelConfig
from ift_jax.errors import UserError
from ift_jax.interop import verify_export
from ift_jax.interop.exported_tensors import ExportedTensor, exported_tensors, gatherer
from ift_jax.interop.gguf import interleave, interleaved_heads, open_gguf
from ift_jax.interop.gguf_architectures import (
    ARCHITECTURES,
    OUTER_NAMES,
    ROPE_FACTORS,
    GgufArchitecture,
)
from ift_jax.interop.gguf_config import config_fields, model_fields, sampling_fields
from ift_jax.interop.gguf_rope import check_llama3, llama3_factors, llama3_scaling
from ift_jax.interop.gguf_tokenizer_export import tokenizer_fields
from ift_jax.interop.gguf_writer import GgufLayout, gguf_package, write_gguf
from ift_jax.interop.hugging_face_config import (
    HuggingFaceModel,
    differences,
    from_hugging_face,
    to_hugging_face,
    with_positions,
)
from ift_jax.interop.tensor_table import tensor_table
from ift_jax.interop.verify_export import WrittenTensor, written
from ift_jax.io.files import new_content
from ift_jax.io.outputs import check_space
from ift_jax.io.typed_fields import TypedFields
from ift_jax.io.write_errors import named_as, write_errors
from ift_jax.models.model import Model, Params
from ift_jax.text.tokenizers.base import Tokenizer
from ift_jax.text.tokenizers.load import tokenizer_from_files

SUFFIX = ".gguf"
Q8_0 = "q8_0"
# GGML's names of the types that most weights have -> general.file_type.
_FILE_TYPES = {"F32": 0, "F16": 1, "Q8_0": 7, "BF16": 32}


class _Target(NamedTuple):
    """What a model is in a file."""

    architecture: GgufArchitecture
    model: HuggingFaceModel
    config: DecoderConfig  # With a bound of positions.


def export_gguf(
    model: Model,
    params: Params,
    tokenizer: Tokenizer,
    output: str,
    *,
    template: str = "",
    stop_ids: Sequence[int] = (),
    dtype: str = "source",
    source_dtypes: Mapping[str, str] | None = None,
    max_length: int = 0,
    generation: Mapping[str, Any] | None = None,
    model_type: str = "",
    name: str = "",
) -> None:
    """Write weights, config, tokenizer, chat template and sampling defaults into one file.

    Every process of a run calls it, and process 0 writes. One tensor (of one layer) is gathered at
    a time. The file appears under its name once it is complete, and has been read back and
    compared. Norms and biases are float32, as llama.cpp wants them.

    Args:
        model: The model, with stacked layers.
        params: The model's parameters.
        tokenizer: The tokenizer, a byte-level BPE.
        output: The file.
        template: The text of the chat template (Jinja); "": none is written.
        stop_ids: The tokens that end an answer, beside EOS; at most two.
        dtype: "float32", "bfloat16", "float16", "source" (each weight as in `source_dtypes`, others
            as the commonest there, else float32), or "q8_0": 8 bits a weight and a scale for each
            32, where rows are a multiple of that, else float16.
        source_dtypes: The name of a tensor -> its dtype in the release ("BF16").
        max_length: The positions of a model whose config has no bound.
        generation: The sampling defaults of the model that the run started from.
        model_type: The family that the model was read as.
        name: The model's name in the file.

    Raises:
        UserError: The package gguf is not installed, a file cannot hold such a model or tokenizer,
            the disk has no room, a weight does not fit float16, or the file does not read back as
            what was written.
        WriteError: The file cannot be written.
    """
    gguf = gguf_package()
    target = _target(model.config, max_length, model_type)
    tensors = _exported(model, target, dtype, source_dtypes or {})
    layouts = {name: _layout(tensor, dtype) for name, tensor in tensors.items()}
    fields = {
        "general.type": "model",
        "general.quantization_version": gguf.GGML_QUANT_VERSION,
        "general.file_type": _file_type(layouts.values()),
        **({"general.name": name} if name else {}),
        **model_fields(target.model.fields, target.architecture),
        **tokenizer_fields(tokenizer, target.config.vocab_size, stop_ids, template),
        **sampling_fields(generation or {}),
    }
    _check_fields(fields, target)
    gather = gatherer(tensors, params)
    if jax.process_index() != 0:
        for their_name in tensors:
            gather(their_name)
        return
    check_space(output, sum(layout.n_bytes for layout in layouts.values()), "--output")
    path = Path(os.path.realpath(output))
    with write_errors(output):
        path.parent.mkdir(parents=True, exist_ok=True)
    with new_content(path) as temporary, named_as(output, temporary):
        checksums = _write(str(temporary), fields, layouts, gather, target)
        _verify(str(temporary), checksums, tokenizer, target.config)


def _target(config: ModelConfig, max_length: int, model_type: str) -> _Target:
    """Return the architecture of a model, and what it is in a Hugging Face folder.

    Raises:
        UserError: There is no such architecture.
    """
    bounded = with_positions(config, max_length)
    by_type = {architecture.model_type: architecture for architecture in ARCHITECTURES.values()}
    for tried in (model_type, *by_type):
        if tried in by_type:
            model = to_hugging_face(bounded, max_length, tried)
            if model.family.model_type == tried:
                assert isinstance(bounded, DecoderConfig)  # As all of these families.
                return _Target(by_type[tried], model, bounded)
    found = to_hugging_face(bounded, max_length, model_type).family.model_type
    raise UserError(
        f"--output: the model is a {found}; GGUF files are written of {', '.join(by_type)} alone"
    )


def _check_fields(fields: Mapping[str, Any], target: _Target) -> None:
    """Refuse a model whose config the fields of a file do not give back."""
    name = target.architecture.name
    stored = {field: _as_stored(field, value) for field, value in fields.items()}
    read = config_fields(TypedFields({**stored, "general.architecture": name}, "--output"))
    said_by_tensors = ("vocab_size", "tie_word_embeddings", *target.architecture.bias_fields)
    for given in said_by_tensors:
        read[given] = target.model.fields[given]
    if target.config.rope_scaling == "llama3":
        check_llama3(target.config)
        read |= llama3_scaling(read, _rope_factors(target.config), "--output")
    if different := differences(target.config, from_hugging_face(read, "--output")):
        lost = ", ".join(f"{name} = {getattr(target.config, name)!r}" for name in different)
        raise UserError(f"--output: a GGUF file of a {name} has no place for config.model: {lost}")


def _as_stored(field: str, value: Any) -> Any:
    """Return the value of a field as it comes back: floats are stored in single precision.

    Raises:
        UserError: Single precision has only infinity or 0 for it.
    """
    if not isinstance(value, float):
        return value
    with np.errstate(over="ignore"):
        stored = float(np.float32(value))
    # A sampling temperature that becomes 0 is greedy, as it was.
    vanishes = stored == 0 != value and not field.startswith("general.sampling.")
    if math.isinf(stored) or vanishes:
        raise UserError(
            f"--output: {field} is {value:g}, and a GGUF file holds it in single precision; "
            "expected 1.5e-45 to 3.4e+38"
        )
    return stored


def _rope_factors(config: DecoderConfig) -> np.ndarray:
    """Return the tensor of Llama 3's RoPE scaling, float32."""
    return llama3_factors(config.head_dim, config.rope_theta, config.rope_factor).astype(np.float32)


def _exported(
    model: Model, target: _Target, dtype: str, source_dtypes: Mapping[str, str]
) -> dict[str, ExportedTensor]:
    """Return the tensors by Hugging Face's names; norms and biases are float32."""
    table = tensor_table(model, target.model.family)
    gathered = exported_tensors(table, "float32" if dtype == Q8_0 else dtype, source_dtypes)
    return {
        name: tensor._replace(dtype="F32") if len(tensor.shape) == 1 else tensor
        for name, tensor in gathered.items()
    }


def _layout(tensor: ExportedTensor, dtype: str) -> GgufLayout:
    """Return how a tensor is stored."""
    type_name = tensor.dtype
    if dtype == Q8_0 and len(tensor.shape) > 1:
        block, _ = gguf_package().GGML_QUANT_SIZES[gguf_package().GGMLQuantizationType.Q8_0]
        type_name = "Q8_0" if tensor.shape[-1] % block == 0 else "F16"
    return GgufLayout(tensor.shape, type_name)


def _file_type(layouts: Iterable[GgufLayout]) -> int:
    """Return the number of the type that most matrices have."""
    counts = collections.Counter(layout.type_name for layout in layouts if len(layout.shape) > 1)
    return _FILE_TYPES[counts.most_common(1)[0][0]]


def _write(
    path: str,
    fields: Mapping[str, Any],
    layouts: Mapping[str, GgufLayout],
    gather: Callable[[str], np.ndarray],
    target: _Target,
) -> dict[str, WrittenTensor]:
    """Write the file; return what was written of each tensor, by Hugging Face's names."""
    their_names = _their_names(layouts, target.architecture)
    heads = interleaved_heads(target.architecture, target.model.fields)
    checksums: dict[str, WrittenTensor] = {}
    in_file = {theirs: layouts[name] for theirs, name in their_names.items()}
    computed: dict[str, np.ndarray] = {}  # What no parameter of the model holds.
    if target.config.rope_scaling == "llama3":
        factors = _rope_factors(target.config)
        computed[ROPE_FACTORS] = factors
        in_file[ROPE_FACTORS] = GgufLayout(factors.shape, "F32")

    def get(their_name: str) -> np.ndarray:
        if their_name in computed:
            return computed[their_name]
        name = their_names[their_name]
        packed = layouts[name].pack(gather(name).astype(np.float32))
        checksums[name] = written(layouts[name].unpack(packed))
        n_heads = heads.get(their_name.split(".")[-2], 0)
        return interleave(packed, n_heads) if n_heads else packed

    write_gguf(path, target.architecture.name, fields, in_file, get)
    return checksums


def _their_names(names: Iterable[str], architecture: GgufArchitecture) -> dict[str, str]:
    """Return the name of each tensor in a file -> that in a Hugging Face folder."""
    outer = {ours: theirs for theirs, ours in OUTER_NAMES.items()}
    in_layer = {ours: theirs for theirs, ours in architecture.layer_names.items()}
    result = {}
    for name in names:
        module, _, kind = name.rpartition(".")
        if module in outer:
            result[f"{outer[module]}.{kind}"] = name
            continue
        layer, _, below = module.removeprefix("model.layers.").partition(".")
        result[f"blk.{layer}.{in_layer[below]}.{kind}"] = name
    return result


def _verify(
    path: str, checksums: Mapping[str, WrittenTensor], tokenizer: Tokenizer, config: DecoderConfig
) -> None:
    """Read a file back and compare it; raise a UserError that names the first difference."""
    read = open_gguf(path)
    verify_export.check_tensors(read.tensors, checksums)
    verify_export.check_same_config(from_hugging_face(read.fields, path), config)
    verify_export.check_same_tokenizer(tokenizer_from_files(read.tokenizer_files, path), tokenizer)
