"""Config files, `--config.section.field=value` overrides, and a run's `config.json`."""

import dataclasses
import json
import os
import re
import traceback
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import config_dict, config_flags

from ift_jax.config.checks import check, check_run
from ift_jax.config.renamed_fields import explain_unknown, renamed_in
from ift_jax.config.schema import Config, DecoderConfig, EncoderDecoderConfig
from ift_jax.errors import UserError
from ift_jax.io.json_reader import json_object, parse_json
from ift_jax.io.paths import as_path

MODELS = {"decoder": DecoderConfig, "encoder_decoder": EncoderDecoderConfig}
# Modules that config files import, which had other names before the package was rebuilt.
MOVED_MODULES = {
    "ift_jax.config_file": "ift_jax.config.files",
    "ift_jax.partitioning": "ift_jax.sharding",
    "tasks.sources": "ift_jax.sources",
    "tasks.preparation": "ift_jax.preparation",
}
# How ConfigDict reports that a field which is read does not exist: "'name'", within another pair
# of quotes if it has a suggestion.
_UNKNOWN_FIELD = re.compile(r"""["']?\\?'(\w+)\\?'(\\nDid you mean .*|\nDid you mean .*)?["']?$""")


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
    if architecture not in MODELS:
        raise UserError(f"{where}: expected one of {', '.join(MODELS)}; got {architecture!r}")
    return Config(model=MODELS[architecture]())


def from_dict(values: dict[str, Any], *, trains: bool = True) -> Config:
    """Builds and checks the frozen config from nested plain values.

    Args:
        values: Section -> field -> value; absent fields have their defaults.
        trains: Whether the config must suffice for training. An imported model's has no data.

    Raises:
        UserError: An unknown field (the nearest valid one is named), a wrong type, or any failed
            check of `check_run` (`check` if not `trains`).
    """
    architecture = values.get("model", {}).get("architecture", "decoder")
    template = _defaults(architecture, "config.model.architecture")
    config = _fill(template, values, "config")
    return check_run(config) if trains else check(config)


def _fill(template: Any, values: dict[str, Any], path: str) -> Any:
    """Replaces the fields of a dataclass, and of those inside it, by given values."""
    fields = {field.name: getattr(template, field.name) for field in dataclasses.fields(template)}
    for name in values:
        if name not in fields:
            raise UserError(f"{path}.{name}: no such field{explain_unknown(name, fields)}")
    filled = {}
    for name, default in fields.items():
        value = values.get(name, default)
        where = f"{path}.{name}"
        if dataclasses.is_dataclass(default) and isinstance(value, dict):
            value = _fill(default, value, where)
        elif isinstance(default, tuple) and isinstance(value, list | tuple):
            value = tuple(value)
        elif isinstance(default, float) and type(value) is int:
            value = float(value)
        elif type(value) is not type(default):
            raise UserError(f"{where}: expected {type(default).__name__}; got {value!r}")
        filled[name] = value
    return dataclasses.replace(template, **filled)


def load(path: str, overrides: Sequence[str] = ()) -> Config:
    """Reads a config file and applies overrides.

    Args:
        path: "file.py", or "file.py:argument" for a `get_config(argument)`.
        overrides: Items of the form "--config.section.field=value".

    Raises:
        UserError: The file does not exist, a field or value is wrong, or an override does not have
            that form.
    """
    file = path.partition(":")[0]
    if not os.path.isfile(file):
        raise UserError(f"--config: no such file: {file}")
    for item in overrides:
        if not re.match(r"--config\.[\w.]+=", item):
            raise UserError(f"{item}: expected --config.section.field=value")
    # Names are checked first, against the file without overrides: config_flags' own message for
    # an unknown field names a Python class instead of the field.
    base = _parse([f"--config={path}"], file)
    for item in overrides:
        _check_path(base, item[2:].partition("=")[0])
    return from_dict(_parse([f"--config={path}", *overrides], file).to_dict())


def _parse(items: list[str], file: str) -> config_dict.ConfigDict:
    values = flags.FlagValues()
    argv = ["ift", *items]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    try:
        values(argv)
        config = values["config"].value
    except Exception as wrapped:  # A config file is the user's code: it may raise anything.
        error = _raised_by_file(wrapped)
        if isinstance(error, UserError):
            raise error from None
        raise UserError(f"{_line_in(file, error)}: {_explain(error)}") from error
    if not isinstance(config, config_dict.ConfigDict):
        raise UserError(
            f"{file}: get_config() must return the ConfigDict that default_config() makes; it "
            f"returned {config!r}"
        )
    return config


def _explain(error: BaseException) -> str:
    """What went wrong in a config file, as a phrase for the user."""
    if isinstance(error, SyntaxError):
        return error.msg
    if isinstance(error, ModuleNotFoundError) and error.name in MOVED_MODULES:
        return f"the module {error.name} is now {MOVED_MODULES[error.name]}"
    if unknown := _UNKNOWN_FIELD.match(str(error)):
        name = unknown.group(1)
        return f"no such field {name!r}{explain_unknown(name, ())}"
    message = " ".join(str(error).split())
    expected = (flags.Error, ValueError, TypeError, AttributeError, KeyError)
    return message if isinstance(error, expected) else f"{type(error).__name__}: {message}"


def _raised_by_file(error: BaseException) -> BaseException:
    """The error of a config file itself, where config_flags wraps it with a whole traceback."""
    while "Error whilst parsing config file" in str(error) and error.__context__:
        error = error.__context__
    return error


def _line_in(file: str, error: BaseException) -> str:
    """`file:line` of the last line of the file that an error passed through, else the file."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return f"{error.filename}:{error.lineno}"
    path = os.path.abspath(file)
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if os.path.abspath(frame.filename) == path]
    return f"{file}:{lines[-1]}" if lines else file


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
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; is this the workdir of a run?") from None
    values = json_object(parse_json(content, path), path)
    if renamed := renamed_in(values):
        changes = ", ".join(f"{before} is now {now}" for before, now in renamed.items())
        raise UserError(
            f"{path}: was written by an earlier version of ift_jax ({changes}); use the version "
            "that began the run, or start a new workdir"
        )
    return from_dict(values, trains=False)
