"""The adapters of a LoRA run as a folder that `peft` loads on top of the base model."""

import dataclasses
import math
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from ift_jax.checkpoint.model_source import ModelSource
from ift_jax.checkpoint.open_model import WorkdirSource, open_model_source
from ift_jax.checkpoint.released_source import HuggingFaceSource
from ift_jax.config.schema import Config, DecoderConfig, MeshConfig
from ift_jax.errors import UserError
from ift_jax.interop.hugging_face_config import to_hugging_face
from ift_jax.interop.hugging_face_export import CARD_FILE
from ift_jax.interop.hugging_face_tokenizer import tokenizer_files
from ift_jax.interop.safetensors_files import open_file, write_safetensors
from ift_jax.interop.tensor_table import leaf_at, leaves, tensor_table
from ift_jax.interop.text_part import name_in_whole_model
from ift_jax.interop.verify_export import WrittenTensor, check_tensors, check_tokenizer, written
from ift_jax.io.folders import new_folder, write_files
from ift_jax.models.lora import MAGNITUDE
from ift_jax.models.model import Params, build_model, resolve_vocab, trained_model
from ift_jax.sharding.mesh import make_mesh
from ift_jax.text.prompts import PromptFormatter
from ift_jax.text.tokenizers.base import Tokenizer

# Our adapters' names, and those of `peft`.
PEFT_NAMES = {
    "lora_a": "lora_A.weight",
    "lora_b": "lora_B.weight",
    MAGNITUDE: "lora_magnitude_vector",
}


class _Tensor(NamedTuple):
    """A tensor of `peft`: one layer, or expert, of one of our stacked adapters, transposed."""

    path: str  # The path of our adapter, such as "layers.mlp.up.lora_a".
    place: tuple[int, ...]  # The layer, and the expert if each has an adapter.
    shape: tuple[int, ...]
    module: str  # The projection that it belongs to, by its Hugging Face name.

    @property
    def projection(self) -> str:
        """The path of our projection that the adapter belongs to, such as "layers.mlp.up"."""
        return self.path.rpartition(".")[0]

    @property
    def target(self) -> str:
        """What the adapter's config calls the projection.

        The full name, because a name's ending may match other modules too; of an expert the ending
        alone, by which `peft` knows the projections that transformers 5 joins.
        """
        return self.module.rpartition(".")[2] if len(self.place) > 1 else self.module


def export_adapter(source: ModelSource, output: str, *, base: str = "", card: str = "") -> None:
    """Write `adapter_config.json`, `adapter_model.safetensors` (float32) and the tokenizer.

    Every process of a run calls this; process 0 writes.

    Args:
        source: A checkpoint of a LoRA run.
        output: The folder to make.
        base: The name or folder of the base model that the adapter's config will name; by default
            the one that the run started from.
        card: The text of the model card (`ift_jax.report.card`); "": none is written.

    Raises:
        UserError: The run has no adapters, the folder is not empty, there is no base model that
            `peft` can load, or the run added rows to the vocabulary, which no adapter holds.
    """
    if not source.config.lora.rank or not isinstance(source, WorkdirSource):
        raise UserError(f"{source.path}: no LoRA adapters here (config.lora.rank is 0)")
    started_from = source.config.model.init_from
    base_source = open_model_source(started_from) if started_from else None
    if not base and (base_source is None or isinstance(base_source, WorkdirSource)):
        raise UserError(
            f"--base: the run started from {started_from or 'nothing'}, which is not a Hugging "
            "Face folder; name the model that the adapters belong to"
        )
    tokenizer = source.tokenizer()
    model_config = resolve_vocab(source.config.model, tokenizer.vocab_size)
    config = dataclasses.replace(source.config, model=model_config)
    template = PromptFormatter.from_config(config, tokenizer).template_source
    if base_source:
        _check_vocabulary(base_source, model_config.vocab_size, tokenizer)

    model = trained_model(config)
    adapters = source.load_adapters(model, make_mesh(MeshConfig(data=1, fsdp=-1)))
    family = base_source.model_type() if base_source else ""
    in_whole_model = isinstance(base_source, HuggingFaceSource) and base_source.is_text_part
    if getattr(base_source, "ignored_tensors", ()) and not in_whole_model:
        raise UserError(
            f"--adapter: {started_from} is a model of images and text, in which `peft` would look "
            "for the adapters under other names; export the model merged"
        )
    tensors = _peft_tensors(config, adapters, family, in_whole_model)

    checksums: dict[str, WrittenTensor] = {}

    def get(name: str) -> np.ndarray:
        tensor = tensors[name]
        stacked = leaf_at(adapters, tensor.path)
        for index in tensor.place:
            stacked = jax.lax.dynamic_index_in_dim(stacked, index, keepdims=False)
        values = multihost_utils.process_allgather(stacked, tiled=True).T
        checksums[name] = written(values)
        return values

    shapes = {name: (tensor.shape, np.dtype(np.float32)) for name, tensor in tensors.items()}
    writes = jax.process_index() == 0
    with new_folder(output, "--output", writes) as partial:
        weights_file = os.path.join(partial, "adapter_model.safetensors")
        write_safetensors(weights_file, shapes, get, writes)
        if writes:
            files = dict(tokenizer_files(tokenizer, model, template, 0))
            files["adapter_config.json"] = _peft_config(
                config, base or started_from, tensors.values()
            )
            if card:
                files[CARD_FILE] = card.encode()
            write_files(partial, files)
            check_tensors(open_file(weights_file), checksums)
            check_tokenizer(partial, tokenizer)


def _check_vocabulary(base: ModelSource, vocab_size: int, tokenizer: Tokenizer) -> None:
    """Raise a UserError if a run uses rows of the vocabulary that its base does not have."""
    n_rows = base.config.model.vocab_size
    n_known = base.tokenizer().base_vocab_size
    if n_rows != vocab_size or n_known < min(tokenizer.vocab_size, n_rows):
        raise UserError(
            "--adapter: the run added tokens to the vocabulary of its base model, "
            "which adapters cannot hold; export it merged"
        )


def _peft_tensors(
    config: Config, adapters: Params, model_type: str, in_whole_model: bool
) -> dict[str, _Tensor]:
    """Return the tensors of the adapters by the names that `peft` gives them.

    Args:
        config: The run's config.
        adapters: The adapters.
        model_type: The family of the base model.
        in_whole_model: Whether `peft` finds the modules in a model of images and text.

    Raises:
        UserError: The family has projections in one tensor that have an adapter each here, or only
            one of the two projections of experts that `peft` holds in one has adapters.
    """
    family = to_hugging_face(config.model, model_type=model_type).family
    entries = {entry.path: entry for entry in tensor_table(build_model(config.model), family)}
    tensors = {}
    for path, stacked in leaves(adapters):
        projection, _, kind = path.rpartition(".")
        entry = entries[f"{projection}.weight"]
        if entry.fused_rows or not entry.transposed:
            raise UserError(
                f"--adapter: {family.model_type} models hold {projection} and others in one tensor "
                f"({entry.names[0]}), for which `peft` has one adapter; export the model merged"
            )
        for number, weight in enumerate(entry.names):
            module = weight.removesuffix(".weight")
            if in_whole_model:
                module = name_in_whole_model(module)
            name = f"base_model.model.{module}.{PEFT_NAMES[kind]}"
            shape = stacked.shape[len(entry.stack) :][::-1]
            tensors[name] = _Tensor(path, entry.place(number), shape, module)
    _check_experts(tensors.values())
    return tensors


def _check_experts(tensors: Iterable[_Tensor]) -> None:
    """Raise a UserError if experts have an adapter of their gate or of what it gates, not of both.

    With transformers 5 `peft` joins the two in one parameter of all experts, and refuses one alone.
    """
    of_experts = {tensor.path.split(".")[-2] for tensor in tensors if len(tensor.place) > 1}
    alone = of_experts & {"gate", "up"}
    if len(alone) == 1:
        raise UserError(
            f"--adapter: the experts have adapters of mlp.{alone.pop()} alone, and `peft` has one "
            "for mlp.gate and mlp.up together; export the model merged"
        )


def _peft_config(config: Config, base: str, tensors: Iterable[_Tensor]) -> dict[str, Any]:
    """Return the contents of `adapter_config.json`."""
    lora = config.lora
    is_decoder = isinstance(config.model, DecoderConfig)
    # Where `peft` joins the adapters of an expert, it doubles both rank and alpha, which leaves the
    # scale as it is without rsLoRA alone.
    rslora = lora.rslora and not (
        isinstance(config.model, DecoderConfig) and config.model.n_experts
    )

    def alpha_at(rank: int, scale: float) -> float:
        return scale * (rank**0.5 if rslora else rank)

    alpha = alpha_at(lora.rank, lora.alpha / (lora.rank**0.5 if lora.rslora else lora.rank))
    other_ranks, other_alphas = {}, {}
    for tensor in tensors:
        rank = lora.rank_of(tensor.projection)
        if rank != lora.rank:
            other_ranks[tensor.module] = rank
        own_alpha = alpha_at(rank, lora.scale_of(tensor.projection))
        if not math.isclose(own_alpha, alpha):
            other_alphas[tensor.module] = own_alpha
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if is_decoder else "SEQ_2_SEQ_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "rank_pattern": other_ranks,
        "lora_alpha": alpha,
        "alpha_pattern": other_alphas,
        "use_rslora": rslora,
        "use_dora": lora.dora,
        "lora_dropout": lora.dropout,
        "bias": "none",
        "target_modules": sorted({tensor.target for tensor in tensors}),
        "inference_mode": True,
    }
