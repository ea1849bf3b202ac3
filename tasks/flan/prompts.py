"""Templates of FLAN: from the fields of an example to its input and target.

The templates are data in `templates/*.toml`, read when a task is first used. All wording is ours;
the papers (arXiv:2109.01652, arXiv:2301.13688) give the scheme.
"""

import dataclasses
import functools
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.flan.option_styles import OptionStyle

FOLDER = Path(__file__).with_name("templates")
PER_GROUP = 10

Fields = Mapping[str, Any]
# The parts of an input that are shown only together with the options.
_OPTIONAL_PARTS = re.compile(r"\s*\[\[.*?\]\]|\s*\{options\}(?=\s|$)")


@dataclasses.dataclass(frozen=True)
class Template:
    """An instruction with fields in braces, and its answer.

    Attributes:
        input: The instruction. `[[...]]` and `{options}` are left out where options are hidden.
        target: The answer.
        inverted: Whether the template asks for something that is an input in the others, for
            example for the question, given the answer.
    """

    input: str
    target: str
    inverted: bool = False

    @functools.cached_property
    def needs(self) -> frozenset[str]:
        """The fields that the template names, without the options."""
        return _fields_named_in(self.input + self.target)

    @functools.cached_property
    def asks(self) -> frozenset[str]:
        """The fields that the input names, without the options."""
        return _fields_named_in(self.input)


def _fields_named_in(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\{(\w+)\}", text)) - {"options"}


@functools.cache
def groups() -> Mapping[str, tuple[Template, ...]]:
    """Read all groups of templates by name. Inverted templates are the last ones of a group.

    Raises:
        ValueError: Two groups have the same name.
    """
    found: dict[str, tuple[Template, ...]] = {}
    for path in sorted(FOLDER.glob("*.toml")):
        with path.open("rb") as file:
            tables = tomllib.load(file)
        for name, table in tables.items():
            if name in found:
                raise ValueError(f"{path}: group {name!r} is defined twice")
            found[name] = _templates_of(table)
    return found


def _templates_of(table: Mapping[str, Any]) -> tuple[Template, ...]:
    """Return the templates of a TOML table.

    An entry is an input, whose target is the table's `target`, or a pair of input and target.
    """
    default_target = table.get("target", "{answer}")
    templates = []
    for entry in table["templates"]:
        text, target = (entry, default_target) if isinstance(entry, str) else entry
        templates.append(Template(text, target))
    for text, target in table.get("inverted", []):
        templates.append(Template(text, target, inverted=True))
    return tuple(templates)


def fill(template: Template, fields: Fields, style: OptionStyle | None) -> tuple[str, str]:
    """Return the input and the target of an example.

    Args:
        template: A template whose `needs` are all among the fields.
        fields: The fields of the example.
        style: How its options are listed; None hides them.
    """
    text = template.input
    values = dict(fields)
    if style is None:
        text = _OPTIONAL_PARTS.sub("", text)
    elif "{options}" in text:
        text = text.replace("[[", "").replace("]]", "")
        if not template.inverted:
            values["answer"] = style.answer(fields["options"], fields["answer"])
        values["options"] = style.block(fields["options"])
    return text.format_map(values).strip(), template.target.format_map(values).strip()
