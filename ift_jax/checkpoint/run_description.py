"""What a workdir says about its run: `config.json`, `run.json` and the tokenizer's files."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

from ift_jax.config import files as config_files
from ift_jax.config import yaml_files
from ift_jax.config.checks import check_run
from ift_jax.config.schema import Config
from ift_jax.config.stages import KEY, Stage
from ift_jax.config.unread_fields import check_all_is_read, without_switched_off
from ift_jax.errors import UserError
from ift_jax.io.files import json_bytes
from ift_jax.io.folders import write_files
from ift_jax.io.json_reader import read_json_object
from ift_jax.io.paths import Workdir, is_remote
from ift_jax.text.tokenizers.base import Tokenizer

CONFIG_FILE = "config.json"
RUN_FILE = "run.json"
YAML_FILE = "config.yaml"
STAGES_FILE = "stages.json"  # In the folder of a run of stages, above their workdirs.
TOKENIZER_FOLDER = "tokenizer"
# The dtype of each tensor of an imported model as it was released.
DTYPES_FILE = "source_dtypes.json"
# The Hugging Face family of an imported model.
FAMILY_FILE = "source_family.json"
# How an imported model is meant to be sampled, by its release.
SAMPLING_FILE = "sampling_defaults.json"


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """The contents of `run.json`, which earlier versions did not write.

    Attributes:
        inputs: What the run reads (`ift_jax.checkpoint.run_inputs`); empty if it is not known.
        inputs_since: The step since which it reads that: 0 unless it was resumed with new data.
        finished_at: The step at which the run was complete, scores included; None before.
    """

    inputs: dict[str, Any] = dataclasses.field(default_factory=dict)
    inputs_since: int = 0
    finished_at: int | None = None

    @classmethod
    def read(cls, workdir: str) -> Self:
        """Read the record of a local workdir; an empty one if there is none.

        Raises:
            UserError: The file is not what was written.
        """
        path = os.path.join(workdir, RUN_FILE)
        if not os.path.exists(path):
            return cls()
        fields = read_json_object(path)
        if set(fields) != {field.name for field in dataclasses.fields(cls)}:
            raise UserError(f"{path}: is not what ift_jax wrote; restore it from a copy")
        return cls(**fields)

    def write(self, workdir: str) -> None:
        """Write the record into a local workdir."""
        write_files(workdir, {RUN_FILE: json_bytes(dataclasses.asdict(self))})


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
    text = yaml_text(config, reasons)
    if reasons or not _says(os.path.join(workdir, YAML_FILE), text):
        files[YAML_FILE] = text.encode()
    files[CONFIG_FILE] = config_files.to_json(config).encode()  # Last: it makes this a run's.
    write_files(workdir, files)


def yaml_text(config: Config, reasons: Mapping[str, str] | None = None) -> str:
    """The text of `config.yaml`; a model that `init_from` decides is left to it."""
    left_out: set[str] = set()
    if config.model.init_from:
        # Imported here: it registers all families of models, which fresh parameters need none of.
        from ift_jax.interop.hugging_face_config import FREE

        decided = {field.name for field in dataclasses.fields(config.model)}
        decided -= {"architecture", "init_from", *FREE}
        left_out = {f"model.{name}" for name in decided}
    return yaml_files.write(config, left_out, reasons or {})


def _says(path: str, text: str) -> bool:
    """Whether a YAML file says what `text` says; comments do not count."""
    if not os.path.exists(path):
        return False
    before = yaml_files.read(path).values
    return config_files.unchecked(before) == config_files.unchecked(
        yaml_files.parse(text, path).values
    )


def read_config(workdir: str) -> Config | None:
    """Return the config of the run in a local workdir; None if there is no run yet."""
    path = os.path.join(workdir, CONFIG_FILE)
    return config_files.from_json(path) if os.path.exists(path) else None


def own_config(workdir: str, overrides: Sequence[str] = ()) -> Config:
    """The config of the run in a workdir, with overrides applied.

    Raises:
        UserError: The workdir holds no run, or an override is wrong, or nothing would read it.
    """
    local = Workdir(workdir).local if is_remote(workdir) else workdir
    path = os.path.join(local, CONFIG_FILE)
    if os.path.exists(path) and not config_files.is_of_run(read_json_object(path)):
        raise UserError(f"{workdir}: is not the workdir of a run; expected --config FILE beside it")
    check_single_run(workdir, local)
    config = config_files.from_json(path)
    if not overrides:
        return config
    config = check_run(config_files.unchecked(config_files.with_overrides(config, overrides)))
    set_fields = config_files.overridden(overrides)
    config = without_switched_off(config, set_fields)
    check_all_is_read(config, set_fields)
    return config


def read_stages(workdir: str, overrides: Sequence[str] = ()) -> list[Stage]:
    """Return the stages of the run in a local workdir; none if it is no run of stages.

    Raises:
        UserError: The file is not what was written, or an override is wrong.
    """
    path = os.path.join(workdir, STAGES_FILE)
    if not os.path.exists(path):
        return []
    listed = read_json_object(path).get(KEY)
    if not isinstance(listed, list):
        raise UserError(f"{path}: is not what ift_jax wrote; restore it from a copy")
    return config_files.stages_from_values(listed, overrides)


def check_single_run(workdir: str, local: str) -> None:
    """Raise a UserError that names the stages if a workdir is that of a run of stages.

    Args:
        workdir: The workdir as the user wrote it.
        local: The same on this machine.
    """
    if stages := read_stages(local):
        folders = ", ".join(os.path.join(workdir, stage.name) for stage in stages)
        raise UserError(f"{workdir}: is a run of stages; expected one of them: {folders}")


def stage_folders(workdir: str) -> list[str]:
    """Return the workdirs of the stages that have begun; none if it is no run of stages."""
    folders = [os.path.join(workdir, stage.name) for stage in read_stages(workdir)]
    return [folder for folder in folders if os.path.exists(os.path.join(folder, CONFIG_FILE))]


def save_stages(workdir: str, stages: Sequence[Stage]) -> None:
    """Write what the stages of a run are into a local workdir."""
    listed = []
    for index, stage in enumerate(stages):
        values = dataclasses.asdict(stage.config)
        if index:  # Its place in the list says where it begins, even if the folder is moved.
            values["model"]["init_from"] = ""
        listed.append({"name": stage.name, **values})
    write_files(workdir, {STAGES_FILE: json_bytes({KEY: listed})})
