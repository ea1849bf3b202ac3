"""What a workdir says about its run: `config.json` and the tokenizer's files."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ift_jax.config import files as config_files
from ift_jax.config import yaml_files
from ift_jax.config.schema import Config
from ift_jax.errors import UserError
from ift_jax.interop.hugging_face_config import FREE
from ift_jax.io.folders import write_files
from ift_jax.io.json_reader import read_json_object
from ift_jax.io.paths import Workdir, as_path, is_remote
from ift_jax.text.tokenizers.base import Tokenizer

CONFIG_FILE = "config.json"
YAML_FILE = "config.yaml"
TOKENIZER_FOLDER = "tokenizer"
# The dtype of each tensor of an imported model as it was released.
DTYPES_FILE = "source_dtypes.json"

# The sections of a config that must be the same when a run is resumed, without these fields,
# which say where and how stores are made but not what they hold.
_IDENTITY_SECTIONS = ("tokenizer", "format", "data", "model", "lora")
_NOT_IDENTITY = ("processes", "store_dir")


def save_description(
    workdir: str, config: Config, tokenizer: Tokenizer, reasons: Mapping[str, str] | None = None
) -> None:
    """Write `config.json`, `config.yaml` and the tokenizer's files into a local workdir.

    Args:
        workdir: The folder.
        config: The run's config.
        tokenizer: Its tokenizer.
        reasons: Dotted names of fields -> why they were chosen. Without them the `config.yaml` of
            a run that began with reasons stays as it is.
    """
    files = {f"{TOKENIZER_FOLDER}/{name}": content for name, content in tokenizer.files.items()}
    files[CONFIG_FILE] = config_files.to_json(config).encode()
    text = _yaml(config, reasons or {})
    if reasons or not _says(os.path.join(workdir, YAML_FILE), text):
        files[YAML_FILE] = text.encode()
    write_files(workdir, files)


def _yaml(config: Config, reasons: Mapping[str, str]) -> str:
    """The text of `config.yaml`; a model that `init_from` decides is left to it."""
    left_out: set[str] = set()
    if config.model.init_from:
        decided = {field.name for field in dataclasses.fields(config.model)}
        decided -= {"architecture", "init_from", *FREE}
        left_out = {f"model.{name}" for name in decided}
    return yaml_files.write(config, left_out, reasons)


def _says(path: str, text: str) -> bool:
    """Whether a YAML file says what `text` says; comments do not count."""
    if not os.path.exists(path):
        return False
    before = yaml_files.read(path).values
    return config_files.unchecked(before) == config_files.unchecked(
        yaml_files.parse(text, path).values
    )


def own_config(workdir: str, overrides: Sequence[str] = ()) -> Config:
    """The config of the run in a workdir, with overrides applied.

    Raises:
        UserError: The workdir holds no run, or an override is wrong.
    """
    local = Workdir(workdir).local if is_remote(workdir) else workdir
    path = os.path.join(local, CONFIG_FILE)
    if os.path.exists(path) and not isinstance(read_json_object(path).get("model"), dict):
        raise UserError(f"{workdir}: is not the workdir of a run; expected --config FILE beside it")
    config = config_files.from_json(path)
    if not overrides:
        return config
    return config_files.from_dict(config_files.with_overrides(config, overrides))


def check_same_run(workdir: str, config: Config) -> None:
    """Refuse to resume a run with other data, another model, or other batches.

    What may change: the length of the run, the optimizer (except what is frozen), the loss, what
    is written when, the evaluation, and the mesh.

    Args:
        workdir: The workdir; if it has no `config.json` yet, there is nothing to compare with.
        config: The config of the run that is about to start there.

    Raises:
        UserError: Names the first field that differs.
    """
    path = os.path.join(workdir, CONFIG_FILE)
    if not as_path(path).exists():
        return
    before = _identity(config_files.from_json(path))
    for field, value in _identity(config).items():
        if before.get(field) != value:
            raise UserError(
                f"config.{field}: the run in {workdir} has {before.get(field)!r}, now it is "
                f"{value!r}; use another --workdir for another run"
            )


def _identity(config: Config) -> dict[str, Any]:
    """Return the fields, by dotted name, that must be the same when a run is resumed."""
    values = dataclasses.asdict(config)
    identity = {
        f"{section}.{name}": value
        for section in _IDENTITY_SECTIONS
        for name, value in values[section].items()
        if name not in _NOT_IDENTITY
    }
    identity["optimizer.freeze"] = config.optimizer.freeze
    identity["seed"] = config.seed
    identity["train.batch_size"] = config.train.batch_size
    return identity
