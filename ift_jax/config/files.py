"""Config files in Python or YAML, overrides of their fields, and a run's `config.json`."""

import dataclasses
import json
import operator
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import config_dict, config_flags

from ift_jax.config import yaml_files
from ift_jax.config.checks import check, check_run
from ift_jax.config.fields import of_type
from ift_jax.config.file_errors import TYPES, file_mistake
from ift_jax.config.renamed_fields import explain_unknown, renamed_in
from ift_jax.config.schema import Config, DecoderConfig, EncoderDecoderConfig
from ift_jax.config.stages import (
    KEY,
    UNKNOWN_START,
    Stage,
    StageText,
    check_kept_state,
    merged,
    of_stage,
    split_overrides,
    split_stages,
)
from ift_jax.config.unread_fields import check_all_is_read, without_switched_off
from ift_jax.errors import UserError, offered
from ift_jax.io.json_reader import json_object, parse_json
from ift_jax.io.paths import as_path

MODELS = {"decoder": DecoderConfig, "encoder_decoder": EncoderDecoderConfig}


def default_config(architecture: str = "decoder") -> config_dict.ConfigDict:
    """Makes the ConfigDict that a config file fills: every field of a run at its default.

    It accepts fields that do not exist, so that `from_dict` can name their place and the nearest
    valid one.

    Args:
        architecture: "decoder" or "encoder_decoder"; decides the fields of the section `model`.

    Raises:
        UserError: There is no such architecture.
    """
    return config_dict.ConfigDict(dataclasses.asdict(_defaults(architecture, "architecture")))


def _defaults(architecture: str, where: str) -> Config:
    """The config of an architecture with every field at its default."""
    if not isinstance(architecture, str) or architecture not in MODELS:
        raise UserError(f"{where}: expected one of {', '.join(MODELS)}; got {architecture!r}")
    return Config(model=MODELS[architecture]())


def from_dict(
    values: dict[str, Any], *, trains: bool = True, overridden: Collection[str] = ()
) -> Config:
    """Builds and checks the frozen config from nested plain values.

    Args:
        values: Section -> field -> value; absent fields have their defaults.
        trains: Whether the config must suffice for training. An imported model's has no data.
        overridden: The dotted names of fields that overrides set; see `without_switched_off`.

    Raises:
        UserError: An unknown field (the nearest valid one is named), a wrong type, any failed
            check of `check_run` (`check` if not `trains`), or, of a config that trains, a field
            that nothing reads.
    """
    config = unchecked(values)
    if not trains:
        return check(config)
    config = without_switched_off(check_run(config), overridden)
    check_all_is_read(config)
    return config


def unchecked(values: dict[str, Any]) -> Config:
    """The config of nested plain values, with names and types of its fields checked, nothing else.

    Args:
        values: Section -> field -> value; absent fields have their defaults.

    Raises:
        UserError: An unknown field, or a value of the wrong type.
    """
    model = values.get("model", {})
    architecture = model.get("architecture", "decoder") if isinstance(model, dict) else "decoder"
    template = _defaults(architecture, "config.model.architecture")
    config: Config = _fill(template, values, "config")
    return config


def _fill(template: Any, values: dict[str, Any], path: str) -> Any:
    """Replaces the fields of a dataclass, and of those inside it, by given values."""
    fields = {field.name: field for field in dataclasses.fields(template)}
    for name in values:
        if name not in fields:
            raise UserError(f"{path}.{name}: no such field{explain_unknown(str(name), fields)}")
    filled = {}
    for name, field in fields.items():
        default = getattr(template, name)
        value = values.get(name, default)
        where = f"{path}.{name}"
        if not dataclasses.is_dataclass(default):
            filled[name] = of_type(where, field, value)
        elif isinstance(value, dict):
            filled[name] = _fill(default, value, where)
        elif value is not default:
            raise UserError(f"{where}: expected a section; got {value!r:.80}")
    return dataclasses.replace(template, **filled)


def load(path: str, overrides: Sequence[str] = (), stage: str | None = "") -> Config:
    """Reads a config file and applies overrides.

    Args:
        path: "file.py", or "file.py:argument" for a `get_config(argument)`; or a file of YAML or
            JSON, such as the one that a run writes into its workdir.
        overrides: Items of the form "--config.section.field=value".
        stage: The stage whose config is wanted, as if it began from where the first stage does;
            "": none was named; None: none can be, by this command.

    Raises:
        UserError: The file does not exist, a field or value is wrong, an override does not have
            that form, or the file has stages and none of them is named.
    """
    found = load_stages(path, overrides)
    if isinstance(found, Config):
        if stage:
            raise UserError(f"--stage {stage}: {path} has no stages")
        return found
    names = [each.name for each in found]
    if stage is None:
        raise UserError(f"--config {path}: has the stages {', '.join(names)}; expected one run")
    if not stage:
        raise UserError(f"--config {path}: has the stages {', '.join(names)}; name one by --stage")
    if stage not in names:
        raise UserError(f"--stage {stage}: no such stage of {path}{offered(stage, names)}")
    return standalone(found, names.index(stage))


def standalone(stages: Sequence[Stage], index: int) -> Config:
    """The config of a stage as if it began from where the first one does: to look at it alone."""
    first, config = stages[0].config, stages[index].config
    if not index:
        return config
    optimizer = dataclasses.replace(config.optimizer, keep_state=False)
    model = dataclasses.replace(config.model, init_from=first.model.init_from)
    config = dataclasses.replace(config, model=model, optimizer=optimizer)
    if not config.tokenizer.path:
        config = dataclasses.replace(config, tokenizer=first.tokenizer)
    return config


def load_stages(path: str, overrides: Sequence[str] = ()) -> Config | list[Stage]:
    """Reads a config file, with stages or without; the arguments and errors are those of `load`.

    An override sets its field in every stage, whatever the file says there;
    "--config.stages.NAME.section.field=value" sets it in one.

    Returns:
        The config of a file without stages, or the stages of one with them. Each begins from
        `UNKNOWN_START` but the first.
    """
    file = path.partition(":")[0]
    if not os.path.isfile(file):
        found = "is a folder" if os.path.isdir(file) else "no such file"
        raise UserError(
            f"--config: {found}: {file}; expected a Python file with get_config(), or YAML"
        )
    if yaml_files.is_yaml(file):
        return _load_yaml(path, file, overrides)
    # Names are checked first, against the file without overrides: config_flags' own message for
    # an unknown field names a Python class instead of the field.
    base = _read(path)
    common, stages = split_stages(base.to_dict())
    if stages:
        return _resolved_stages(common, stages, overrides)
    _check_overrides(base, overrides)
    config = _read(path, overrides) if overrides else base
    return from_dict(config.to_dict(), overridden=overridden(overrides))


def stages_from_values(
    listed: Sequence[Mapping[str, Any]], overrides: Sequence[str]
) -> list[Stage]:
    """Makes the stages that a workdir names, of which each has all its fields."""
    common, stages = split_stages({KEY: listed})
    return _resolved_stages(common, stages, overrides)


def _resolved_stages(
    common: dict[str, Any], stages: Sequence[StageText], overrides: Sequence[str]
) -> list[Stage]:
    """Makes the config of each stage, and checks what needs two of them."""
    unchecked(common)  # Its mistakes are no stage's.
    for_all, own = split_overrides(overrides, [stage.name for stage in stages])
    resolved: list[Stage] = []
    for stage in stages:
        try:
            config = unchecked(merged(common, stage.values))
            config = without_switched_off(config, set(flat(stage.values)))
        except UserError as error:
            raise of_stage(stage.name, error) from error
        values = with_overrides(config, for_all)
        try:
            if own[stage.name]:
                values = with_overrides(unchecked(values), own[stage.name])
            if resolved:
                values["model"]["init_from"] = UNKNOWN_START
            set_fields = overridden([*for_all, *own[stage.name]])
            config = from_dict(values, overridden=set_fields)
            if resolved:
                before = resolved[-1]
                check_kept_state(before.config, config, f"stage {before.name}")
        except UserError as error:
            raise of_stage(stage.name, error) from error
        resolved.append(Stage(stage.name, config))
    return resolved


def _load_yaml(path: str, file: str, overrides: Sequence[str]) -> Config | list[Stage]:
    if path != file:
        raise UserError(f"--config: {path}: only a Python file takes an argument after ':'")
    text = yaml_files.read(file)
    try:
        common, stages = split_stages(text.values)
        if stages:
            return _resolved_stages(common, stages, overrides)
        values = with_overrides(unchecked(text.values), overrides)
        return from_dict(values, overridden=overridden(overrides))
    except UserError as error:
        if str(error).startswith("--config."):
            raise
        place = yaml_files.place_of(file, text.lines, str(error))
        raise UserError(f"{place}: {error}") from error


def with_overrides(config: Config, overrides: Sequence[str]) -> dict[str, Any]:
    """The nested values of a config with overrides applied; they are not checked.

    Args:
        config: The config.
        overrides: Items of the form "--config.section.field=value".

    Raises:
        UserError: An override names no field, or its value has the wrong type.
    """

    def apply(items: Sequence[str]) -> config_dict.ConfigDict:
        values = flags.FlagValues()
        base = config_dict.ConfigDict(dataclasses.asdict(config))
        argv = ["ift", *items]
        config_flags.DEFINE_config_dict("config", base, flag_values=values, sys_argv=argv)
        values(argv)
        applied: config_dict.ConfigDict = values["config"].value
        return applied

    base = apply(())
    _check_overrides(base, overrides)
    try:
        result: dict[str, Any] = apply(overrides).to_dict()
    except (flags.Error, ValueError, TypeError, SyntaxError):
        for item in overrides:  # One by one, to name the one that is wrong.
            _check_value(item, base, apply)
        raise
    return result


def overridden(overrides: Sequence[str]) -> set[str]:
    """The dotted names, such as "train.steps", of the fields that overrides set."""
    return {item.removeprefix("--config.").partition("=")[0] for item in overrides}


def _read(path: str, overrides: Sequence[str] = ()) -> config_dict.ConfigDict:
    """Runs a config file, and applies overrides whose fields exist."""
    file = path.partition(":")[0]
    try:
        config = _parse([f"--config={path}", *overrides])
    except (Exception, SystemExit) as wrapped:  # A config file is the user's code.
        if overrides:
            base = _read(path)
            for item in overrides:
                _check_value(item, base, lambda items: _parse([f"--config={path}", *items]))
        raise file_mistake(file, wrapped) from wrapped
    if not isinstance(config, config_dict.ConfigDict):
        raise UserError(
            f"{file}: get_config() must return the ConfigDict that default_config() makes; it "
            f"returned {config!r:.80}"
        )
    return config


def _parse(items: Sequence[str]) -> Any:
    values = flags.FlagValues()
    argv = ["ift", *items]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    values(argv)
    config = values["config"].value
    hasattr(config, "to_dict")  # An OSError of the file is raised by the first use of the config.
    return config


def _check_value(
    item: str, base: config_dict.ConfigDict, apply: Callable[[Sequence[str]], Any]
) -> None:
    """Raises a UserError if `apply`, given this one override, finds no value of the field in it."""
    name, _, value = item.partition("=")
    try:
        apply([item])
    except (flags.Error, ValueError, TypeError, SyntaxError):
        field_type = type(operator.attrgetter(name.removeprefix("--config."))(base))
        expected = TYPES.get(field_type.__name__, field_type.__name__)
        raise UserError(f"{name}: expected {expected}; got {value!r:.80}") from None


def _check_overrides(config: config_dict.ConfigDict, overrides: Sequence[str]) -> None:
    """Checks the form of overrides, and that the fields that they name exist."""
    for item in overrides:
        if not re.match(r"--config\.[\w.]+=", item):
            raise UserError(f"{item}: expected --config.section.field=value")
        _check_path(config, item[2:].partition("=")[0])


def _check_path(config: config_dict.ConfigDict, path: str) -> None:
    """Checks that the field of an override exists, and is not a whole section."""
    node = config
    walked = "config"
    for name in path.split(".")[1:]:
        if not isinstance(node, config_dict.ConfigDict):
            raise UserError(f"--{path}: {walked} is a value, not a section")
        if name not in node:
            raise UserError(f"--{path}: no such field{explain_unknown(name, node.keys())}")
        node = node[name]
        walked += f".{name}"
    if isinstance(node, config_dict.ConfigDict):
        raise UserError(f"--{path}: is a section; set one of {', '.join(node.keys())}")


def to_json(config: Config) -> str:
    """The config as the text of a run's `config.json`."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(path: str) -> Config:
    """Reads a run's `config.json`.

    Raises:
        UserError: The file is missing, is not JSON, holds an unknown field, or was written when
            fields had other names.
    """
    try:
        content = as_path(path).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no such file; is this the workdir of a run?") from None
    values = json_object(parse_json(content, path), path)
    if renamed := renamed_in(values):
        changes = ", ".join(f"{before} is now {now}" for before, now in renamed.items())
        raise UserError(
            f"{path}: was written by an earlier version of ift_jax ({changes}); use the version "
            "that began the run, or start a new workdir"
        )
    return from_dict(values, trains=False)


def is_of_run(values: Mapping[str, Any]) -> bool:
    """Return whether a `config.json` is that of a run; a Hugging Face folder has that name too."""
    return isinstance(values.get("model"), dict)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted name, such as "train.steps"."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found
