"""Run configs as YAML: `ift train --config run.yaml`, and the `config.yaml` that a run writes.

The file holds the sections and fields of `ift_jax.config.schema`; a field that is absent has its
default. JSON is read as well, because every JSON text is YAML.
"""

import dataclasses
import os
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import yaml

from ift_jax.config.schema import Config
from ift_jax.config.stages import KEY
from ift_jax.errors import UserError

ENDINGS = (".yaml", ".yml", ".json")
_WIDTH = 100


class ConfigText(NamedTuple):
    """What a YAML file says.

    Attributes:
        values: Section -> field -> value.
        lines: The line of each field and section, by dotted name.
    """

    values: dict[str, Any]
    lines: dict[str, int]


class _Loader(yaml.SafeLoader):
    """A safe loader that reads numbers as YAML 1.2 does: 1e-4 is a number and no text."""


class _Dumper(yaml.SafeDumper):
    """A dumper that quotes a text which `_Loader` would take for a number."""


_NUMBER = re.compile(
    r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
)
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+0123456789."))


def read(path: str) -> ConfigText:
    """Reads a config file.

    Raises:
        UserError: The file cannot be read, or as `parse`.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            return parse(file.read(), path)
    except OSError as error:
        raise UserError(f"--config: {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason})") from error


def parse(text: str, where: str) -> ConfigText:
    """Parses the text of a config file.

    Args:
        text: The text.
        where: The file, for messages.

    Raises:
        UserError: The text is not YAML, names a field twice, or is no mapping of sections; names
            the file and the line.
    """
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            lines = _lines(root, where)
            values = loader.construct_document(root) if root else {}
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{where}:{line}: not YAML: {error.problem}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{where}: not YAML: {reason}") from error
    return ConfigText(values, lines)


def parse_values(text: str) -> Any:
    """Parses any YAML, with numbers as in a config file.

    Raises:
        yaml.YAMLError: The text is not YAML.
    """
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader, see above.


def _lines(root: yaml.Node | None, path: str) -> dict[str, int]:
    """The line of each field and section; refuses what is no mapping, and names given twice."""
    lines: dict[str, int] = {}
    if root is None:
        return lines
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{path}:{root.start_mark.line + 1}: expected sections such as 'train:'")
    _add_lines(root, "", path, lines)
    return lines


def _add_lines(node: yaml.MappingNode, prefix: str, path: str, lines: dict[str, int]) -> None:
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
            raise UserError(f"{path}:{line}: expected the name of a field; got {key.value!r}")
        name = f"{prefix}{key.value}"
        if name in lines:
            raise UserError(f"{path}:{line}: {name} is given twice, first in line {lines[name]}")
        lines[name] = line
        if isinstance(value, yaml.MappingNode):
            _add_lines(value, f"{name}.", path, lines)
        elif name == KEY and isinstance(value, yaml.SequenceNode):
            for item in value.value:
                _add_stage_lines(item, path, lines)


def _add_stage_lines(item: yaml.Node, path: str, lines: dict[str, int]) -> None:
    """Add the lines of a stage's fields as `stages.NAME.section.field`."""
    if not isinstance(item, yaml.MappingNode):
        return  # `split_stages` says what was expected.
    names = [value.value for key, value in item.value if key.value == "name"]
    # `split_stages` refuses a name that is given twice.
    if names and isinstance(names[0], str) and f"{KEY}.{names[0]}" not in lines:
        lines[f"{KEY}.{names[0]}"] = item.start_mark.line + 1
        _add_lines(item, f"{KEY}.{names[0]}.", path, lines)


def place_of(path: str, lines: Mapping[str, int], message: str) -> str:
    """`path:line` of the first field that an error's message names, or else the path.

    Args:
        path: The file.
        lines: `ConfigText.lines`.
        message: A message that names a field as "config.section.field".
    """
    for name in re.findall(r"config\.([\w.-]*\w)", message):
        of_all_stages = re.sub(rf"{KEY}\.[\w-]+\.", "", name)
        if name not in lines and of_all_stages in lines:
            name = of_all_stages  # The stage has the field from outside the list.
        while name:
            if name in lines:
                return f"{path}:{lines[name]}"
            name = name.rpartition(".")[0]
    return path


def write(config: Config, left_out: Collection[str], reasons: Mapping[str, str]) -> str:
    """The text of a run's `config.yaml`, which `read` reads again.

    It holds every field that differs from its default or was chosen.

    Args:
        config: The run's config.
        left_out: Dotted names of fields that something else decides, such as the shape of a model
            that `model.init_from` gives.
        reasons: Why a field was chosen, by dotted name; written as a comment above it.
    """
    lines = ["# This run's config: ift train --config THIS_FILE --workdir ANOTHER trains it again."]
    defaults = dataclasses.replace(Config(), model=type(config.model)())
    for section in dataclasses.fields(config):
        value = getattr(config, section.name)
        default = getattr(defaults, section.name)
        if not dataclasses.is_dataclass(value):
            if value != default:
                lines += _field_lines(section.name, value, reasons.get(section.name, ""), "")
            continue
        inside: list[str] = []
        for field in dataclasses.fields(value):
            name = f"{section.name}.{field.name}"
            given = getattr(value, field.name)
            is_said = name in reasons or name == "model.architecture"
            is_needed = is_said or given != getattr(default, field.name)
            if is_needed and name not in left_out:
                inside += _field_lines(field.name, given, reasons.get(name, ""), "  ")
        if inside:
            lines += [f"{section.name}:", *inside]
    return "\n".join(lines) + "\n"


def _field_lines(name: str, value: Any, reason: str, indent: str) -> list[str]:
    comment = [f"{indent}# {line}" for line in reason.splitlines()]
    plain = list(value) if isinstance(value, tuple) else value
    flow = isinstance(plain, list) and len(plain) > 0
    text = yaml.dump(
        {name: plain},
        Dumper=_Dumper,
        default_flow_style=None if flow else False,
        allow_unicode=True,
        width=_WIDTH - len(indent),
        sort_keys=False,
    )
    return [*comment, *(indent + line for line in text.rstrip("\n").splitlines())]


def is_yaml(path: str) -> bool:
    """Whether a config of this name is YAML or JSON rather than Python."""
    return os.path.splitext(path)[1].lower() in ENDINGS
