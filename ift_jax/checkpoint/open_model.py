"""Opening a model, whatever it is: a run's workdir, a Hugging Face folder, or a GGUF file."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import jax
from flax import traverse_util
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ift_jax.checkpoint.manager import Checkpoints, check_frozen
from ift_jax.checkpoint.model_source import BEST, ModelSource, StepChoice
from ift_jax.checkpoint.quantize_on_load import quantizing
from ift_jax.checkpoint.released_source import GgufSource, HuggingFaceSource
from ift_jax.checkpoint.retention import Ranking
from ift_jax.checkpoint.run_description import (
    CONFIG_FILE,
    DTYPES_FILE,
    FAMILY_FILE,
    SAMPLING_FILE,
    TOKENIZER_FOLDER,
    check_single_run,
)
from ift_jax.config import files as config_files
from ift_jax.config.schema import TokenizerConfig
from ift_jax.errors import UserError, counted
from ift_jax.interop.hugging_face_weights import Convert, keep_as_it_is
from ift_jax.io.hub_names import hub_hint
from ift_jax.io.json_reader import read_json_object
from ift_jax.io.paths import Workdir, exists, is_remote
from ift_jax.models import lora
from ift_jax.models.model import Model, Params, build_model, join, trained_model
from ift_jax.sharding import rules
from ift_jax.sharding.checksums import tree_checksum
from ift_jax.sharding.trees import abstract
from ift_jax.text.tokenizers.base import Tokenizer
from ift_jax.text.tokenizers.load import load_tokenizer


def open_model_source(path: str, step: StepChoice = None) -> ModelSource:
    """Open a model; read no weights yet.

    Args:
        path: A Hugging Face folder, a `.gguf` file, or the workdir of a run.
        step: The checkpoint of a run; by default its newest.

    Raises:
        UserError: The path is none of the three, or cannot be used; or there is no such checkpoint.
    """
    if path.endswith(".gguf") and not is_remote(path):
        _check_no_step(path, step)
        return GgufSource(path)
    local = Workdir(path).local if is_remote(path) else path
    config_file = os.path.join(local, CONFIG_FILE)
    if not os.path.exists(config_file):
        check_single_run(path, local)
        raise UserError(
            f"{path}: no {CONFIG_FILE} here; expected a run's workdir or a Hugging Face folder"
            f"{hub_hint(path)}"
        )
    fields = read_json_object(config_file)
    if config_files.is_of_run(fields):
        return WorkdirSource(path, local, step)
    if is_remote(path):
        raise UserError(f"{path}: not the workdir of a run; expected a copy on this machine")
    _check_no_step(path, step)
    return HuggingFaceSource(path, config_file, fields)


def _check_no_step(path: str, step: StepChoice) -> None:
    """Raise a UserError if a checkpoint is asked for where there are none."""
    if step is not None:
        raise UserError(
            f"{path}: is a released model, which has no checkpoints to choose from; expected the "
            "workdir of a run with --step or --best"
        )


class WorkdirSource(ModelSource):
    """The workdir of a run, at one of its checkpoints.

    Attributes:
        step: The step of the checkpoint.
        local: The workdir, or a local copy of its small files.
    """

    def __init__(self, path: str, local: str, step: StepChoice = None):
        """Open a checkpoint of a workdir.

        Args:
            path: The workdir, local or in a bucket.
            local: The workdir, or a local copy of its small files.
            step: The step of the checkpoint; by default the newest.

        Raises:
            UserError: There is no such checkpoint, or it is not known which one is the best.
        """
        self.path = path
        self.config = config_files.from_json(os.path.join(local, CONFIG_FILE))
        self.local = local
        ranking = Ranking.of(self.config.train)
        self._checkpoints = Checkpoints(path, read_only=True, ranking=ranking)
        self.step = self._best_step() if step == BEST else self._chosen_step(step)

    def _best_step(self) -> int:
        """Return the best checkpoint's step; say in `choice` what it is the best by."""
        metric = self.config.train.best_metric
        steps = self._checkpoints.steps()
        best = self._checkpoints.best()
        if best is None:
            existing = ", ".join(map(str, steps)) or "-"
            raise UserError(
                f"{self._checkpoints.path}: no checkpoint has a measured {metric} "
                f"(train.best_metric), so none is the best; there: {existing}; name one with --step"
            )
        self.choice = (
            f"step {best.step}: the best of {counted(len(steps), 'checkpoint')} by {metric} "
            f"({best.value:.4g})"
        )
        if best.better is not None:
            self.choice += (
                f"; step {best.better} was better and is not kept (train.keep_best="
                f"{self.config.train.keep_best})"
            )
        return best.step

    def _chosen_step(self, step: int | None) -> int:
        steps = self._checkpoints.steps()
        if steps and step is None:
            return steps[-1]
        if step is not None and step in steps:
            return step
        wanted = "no checkpoint" if step is None else f"no checkpoint of step {step}"
        existing = ", ".join(map(str, steps)) or "-"
        raise UserError(f"{self._checkpoints.path}: {wanted}; there: {existing}")

    @property
    def tokenizer_config(self) -> TokenizerConfig:
        folder = os.path.join(self.local, TOKENIZER_FOLDER)
        return dataclasses.replace(self.config.tokenizer, path=folder)

    def tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.tokenizer_config.path, self.tokenizer_config)

    def n_known_tokens(self, tokenizer: Tokenizer) -> int:
        return tokenizer.vocab_size  # A run trains the rows of added tokens as well.

    def dtypes(self) -> Mapping[str, str]:
        file = os.path.join(self.local, DTYPES_FILE)
        if os.path.exists(file):  # Written by `ift import`.
            return read_json_object(file)
        base = self.config.model.init_from
        return open_model_source(base).dtypes() if base and exists(base) else {}

    def model_type(self) -> str:
        file = os.path.join(self.local, FAMILY_FILE)
        if os.path.exists(file):  # Written by `ift import`.
            return str(read_json_object(file)["model_type"])
        base = self.config.model.init_from
        return open_model_source(base).model_type() if base and exists(base) else ""

    def sampling_defaults(self) -> Mapping[str, Any]:
        file = os.path.join(self.local, SAMPLING_FILE)
        if os.path.exists(file):  # Written by `ift import`.
            return read_json_object(file)
        base = self.config.model.init_from
        return open_model_source(base).sampling_defaults() if base and exists(base) else {}

    def load_params(self, model: Model, mesh: Mesh, convert: Convert = keep_as_it_is) -> Params:
        params = self._merged(model, mesh)
        if convert is keep_as_it_is:
            return params
        flat = traverse_util.flatten_dict(params, sep=".")
        del params  # What is converted need not stay.
        kept: dict[str, jax.Array] = {}
        while flat:
            kept |= convert(*flat.popitem())
        return traverse_util.unflatten_dict(kept, sep=".")

    def _merged(self, model: Model, mesh: Mesh) -> Params:
        """Read all parameters of the model without adapters."""
        with_adapters = trained_model(dataclasses.replace(self.config, model=model.config))
        params = self._restore(with_adapters, mesh)
        if not self.config.lora.rank:
            return params

        def merge(params: Params) -> Params:
            return lora.merge(params, config=self.config.lora)

        shardings = jax.tree.map(lambda leaf: leaf.sharding, _abstract_params(model, mesh))
        return jax.jit(merge, out_shardings=shardings)(params)

    def load_adapters(self, model: Model, mesh: Mesh) -> Params:
        """Read the adapters of a LoRA run, without the weights that they belong to.

        Args:
            model: The model with its adapters (`trained_model`).
            mesh: The mesh to shard them over.
        """
        adapters, _ = model.split(_abstract_params(model, mesh))
        return self._checkpoints.restore(self.step, {"params": adapters})["params"]

    def _restore(self, model: Model, mesh: Mesh) -> Params:
        """Read all parameters, adapters apart from the weights.

        Frozen parameters are in the checkpoint only if the run started from fresh ones. Otherwise
        they are read from `model.init_from`, and must be those that the run was trained on.
        """
        trained, frozen = model.split(_abstract_params(model, mesh))
        base = self.config.model.init_from
        if not frozen:
            parts = self._checkpoints.restore(self.step, {"params": trained})
            return parts["params"]
        if not base:
            parts = self._checkpoints.restore(self.step, {"params": trained, "frozen": frozen})
            return join(parts["params"], parts["frozen"])

        replicated = NamedSharding(mesh, PartitionSpec())
        sum_shape = abstract(jax.eval_shape(lambda: tree_checksum({})), replicated)
        parts = self._checkpoints.restore(self.step, {"params": trained, "frozen_sum": sum_shape})
        base_params = open_model_source(base).params(
            build_model(model.config), mesh, self.tokenizer(), quantizing(model, mesh)
        )
        _, frozen = model.split(base_params)
        frozen_as_trained = jax.jit(model.cast_frozen)(frozen)
        check_frozen(frozen_as_trained, parts["frozen_sum"], base)
        return join(parts["params"], frozen)


def _abstract_params(model: Model, mesh: Mesh) -> Params:
    """Return the shape, dtype and sharding of each parameter."""
    shardings = rules.tree_shardings(mesh, model.logical_axes, model.shapes)
    return abstract(model.shapes, shardings)
