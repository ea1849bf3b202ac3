"""ConfigDict <-> dataclass: config files, `--config.a.b=value` overrides, config.json."""

import dataclasses
import difflib
import json
import os
import re
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import config_dict, config_flags

from ift_jax.config.checks import check, check_run
from ift_jax.config.schema import Config, DecoderConfig, EncoderDecoderConfig
from ift_jax.errors import UserError
from ift_jax.io.paths import place

MODELS = {"decoder": DecoderConfig, "encoder_decoder": EncoderDecoderConfig}


def default_config(architecture: str = "decoder") -> config_dict.ConfigDict:
    """A locked ConfigDict with every field of a run at its default; a config file fills it.

    Of the architecture "decoder" or "encoder_decoder".
    """
    config = Config(model=MODELS[architecture]())
    return config_dict.ConfigDict(dataclasses.asdict(config))  # Locked: a misspelt field raises.


def from_dict(values: dict[str, Any], *, trains: bool = True) -> Config:
    """Builds and checks the frozen config from nested plain values.

    Raises:
        UserError: an unknown field (the nearest valid one is named), a wrong type, or any failed
            check of `config.check_run` (of `config.check` if not `trains`: an imported model's
            has no data).
    """
    architecture = values.get("model", {}).get("architecture", "decoder")
    if architecture not in MODELS:
        raise UserError(
            f"config.model.architecture: expected one of {', '.join(MODELS)}; got {architecture!r}"
        )
    template = Config(model=MODELS[architecture]())
    config = _fill(template, values, "config")
    return check_run(config) if trains else check(config)


def _fill(template: Any, values: dict[str, Any], path: str) -> Any:
    fields = {field.name: getattr(template, field.name) for field in dataclasses.fields(template)}
    for name in values:
        if name not in fields:
            raise UserError(f"{path}.{name}: no such field{_nearest(name, fields)}")
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


def _nearest(name: str, names: Any) -> str:
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; the fields are {', '.join(names)}"


def load(path: str, overrides: Sequence[str] = ()) -> Config:
    """Reads `file.py` (`file.py:argument` for a `get_config(argument)`) and applies overrides.

    Raises:
        UserError: the file is not there, a field or value is wrong, or an override is not of the
            form `--config.section.field=value`.
    """
    file = path.partition(":")[0]
    if not os.path.isfile(file):
        raise UserError(f"--config: no such file: {file}")
    for item in overrides:
        if not re.match(r"--config\.[\w.]+=", item):
            raise UserError(f"{item}: expected --config.section.field=value")
    # Names are checked first against the file alone: the library's own message for an
    # unknown field names a Python class instead of the field.
    base = _parse([f"--config={path}"], file)
    for item in overrides:
        _check_path(base, item[2:].partition("=")[0])
    return from_dict(_parse([f"--config={path}", *overrides], file).to_dict())


def _parse(items: list[str], file: str) -> config_dict.ConfigDict:
    values, argv = flags.FlagValues(), ["ift", *items]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    try:
        values(argv)
    except (flags.Error, ValueError, TypeError, AttributeError, KeyError) as error:
        message = " ".join(str(error).split())
        raise UserError(f"{file}: {message}") from error
    return values["config"].value


def _check_path(config: config_dict.ConfigDict, path: str) -> None:
    node, walked = config, "config"
    for name in path.split(".")[1:]:
        if not isinstance(node, config_dict.ConfigDict):
            raise UserError(f"--{path}: {walked} is a value, not a section")
        if name not in node:
            raise UserError(f"--{path}: no such field{_nearest(name, node.keys())}")
        node, walked = node[name], f"{walked}.{name}"
    if isinstance(node, config_dict.ConfigDict):
        raise UserError(f"--{path}: is a section; set one of {', '.join(node.keys())}")


def to_json(config: Config) -> str:
    """The config as the text of a run's `config.json`."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(path: str) -> Config:
    """Reads a run's `config.json`.

    Raises:
        UserError: the file is missing, is not JSON, or holds an unknown field.
    """
    try:
        return from_dict(json.loads(place(path).read_text("utf-8")), trains=False)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; is this the workdir of a run?") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON: {error.msg}") from error
