"""The adapters of a LoRA run as a folder that `peft` loads on top of the base model."""

import dataclasses
import os

import jax
import numpy as np
from jax.experimental import multihost_utils

from ift_jax.checkpoint.model_source import open_model_source
from ift_jax.config.schema import DecoderConfig, MeshConfig
from ift_jax.errors import UserError
from ift_jax.interop.hugging_face_config import to_hugging_face
from ift_jax.interop.hugging_face_tokenizer import tokenizer_files
from ift_jax.interop.safetensors_files import write_safetensors
from ift_jax.interop.tensor_table import leaf_at, leaves, tensor_table
from ift_jax.io.folders import new_folder, write_files
from ift_jax.models.model import build_model, resolve_vocab, trained_model
from ift_jax.sharding.mesh import make_mesh
from ift_jax.text.prompts import Formatter


def export_adapter(workdir: str, step: int | None, output: str, *, base: str = "") -> None:
    """Writes `adapter_config.json`, `adapter_model.safetensors` (float32) and the tokenizer.

    Every process of a run calls it; process 0 writes. `base` is the name or folder of the base
    model that the config is to say, by default where the run began.

    Raises:
        UserError: the run has no adapters, the folder is not empty, there is no base model that
            `peft` can load, or the run added rows to its vocabulary, which no adapter holds.
    """
    source = open_model_source(workdir, step)
    config, begun = source.config, source.config.model.init_from
    if not config.lora.rank or source.adapters is None:
        raise UserError(f"{workdir}: no LoRA adapters here (config.lora.rank is 0)")
    before = open_model_source(begun) if begun else None
    if not base and (before is None or before.is_run):
        raise UserError(
            f"--base: the run began from {begun or 'nothing'}, no Hugging Face folder; "
            "name the model that the adapters belong to"
        )
    tokenizer = source.tokenizer()
    own = resolve_vocab(config.model, tokenizer.vocab_size)
    config = dataclasses.replace(config, model=own)
    template = Formatter.from_config(config, tokenizer).template_source
    if before:
        rows, known = before.config.model.vocab_size, before.tokenizer()
        if rows != config.model.vocab_size or known.n_given < min(tokenizer.vocab_size, rows):
            raise UserError(
                "--adapter: the run added tokens to the vocabulary of its base model, "
                "which adapters cannot hold; export it merged"
            )
    mesh = make_mesh(MeshConfig(data=1, fsdp=-1))
    adapters = source.adapters(trained_model(config), mesh)
    kinds = {"lora_a": "lora_A.weight", "lora_b": "lora_B.weight"}
    family = to_hugging_face(config.model).family
    entries = {entry.path: entry for entry in tensor_table(build_model(config.model), family)}
    places, modules = {}, []
    for path, leaf in leaves(adapters):
        of, _, kind = path.rpartition(".")
        for i, weight in enumerate(entries[f"{of}.weight"].names):
            module = weight.removesuffix(".weight")
            places[f"base_model.model.{module}.{kinds[kind]}"] = (path, i, leaf.shape[:0:-1])
            modules.append(module)

    def get(name: str) -> np.ndarray:
        path, layer, _ = places[name]
        leaf = jax.lax.dynamic_index_in_dim(leaf_at(adapters, path), layer, keepdims=False)
        return multihost_utils.process_allgather(leaf, tiled=True).T

    tensors = {name: (shape, np.dtype(np.float32)) for name, (_, _, shape) in places.items()}
    fields = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if isinstance(config.model, DecoderConfig) else "SEQ_2_SEQ_LM",
        "base_model_name_or_path": base or begun,
        "r": config.lora.rank,
        "lora_alpha": config.lora.alpha,
        "use_rslora": config.lora.rslora,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(set(modules)),  # Whole names: an ending may match others too.
        "inference_mode": True,
    }
    writes = jax.process_index() == 0
    with new_folder(output, "--output", writes) as partial:
        write_safetensors(os.path.join(partial, "adapter_model.safetensors"), tensors, get, writes)
        if writes:
            files = tokenizer_files(tokenizer, trained_model(config), template, 0)
            write_files(partial, {**files, "adapter_config.json": fields})
