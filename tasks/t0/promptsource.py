"""Templates of promptsource (Bach et al. 2022, arXiv:2202.01279): reading and applying them.

A file `<dataset>/[<subset>/]templates.yaml` holds templates. A template is Jinja text: the input,
`|||` and the target. A template of a question with fixed choices also has a Jinja text of the
answers. Two YAML tags are known, and no other object is ever constructed; Jinja runs in its
sandbox. The filters `choice` and `random`, for which promptsource uses an unseeded `random`, use
the draws of the example here.
"""

import collections
import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import yaml
from jinja2 import filters, meta, sandbox

from ift_jax.data.randomness import Draws
from ift_jax.errors import UserError

SEPARATOR = "|||"
# The most characters of a value that a template shows. The limit is promptsource's.
TEXT_LENGTH = 2048
# Replaces the separator inside the text of a row, so that only the template's own separator splits.
_PROTECTED = "\ue000pipes\ue000"
_DRAWS = "_draws"  # The name of the example's draws in the context of a template.
# The errors of a template's Jinja on a row that it does not expect.
RENDERING_ERRORS = (
    jinja2.TemplateError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
)


@dataclasses.dataclass(frozen=True)
class Template:
    """A prompt of a data set.

    Attributes:
        name: The name, unique within its file.
        jinja: Input and target, with one separator between them.
        answer_choices: The answers, with separators between them; "" if there are none.
        id: The id, unique among all files.
        reference: The source of the prompt.
        original_task: Whether the prompt asks what the data set was made for.
        choices_in_prompt: Whether the input names the answers.
        metrics: The metrics, by promptsource's names.
        languages: The languages of the prompt.
    """

    name: str
    jinja: str
    answer_choices: str = ""
    id: str = ""
    reference: str = ""
    original_task: bool = False
    choices_in_prompt: bool = False
    metrics: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads plain YAML, and objects of promptsource's two tags as mappings."""


def _mapping(loader: Any, node: yaml.Node) -> Any:
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("!Template", _mapping)
_Loader.add_constructor("!TemplateMetadata", _mapping)


def read_yaml(path: str) -> dict[str, Any]:
    """Return the content of a `templates.yaml`, which has its `templates` by id.

    Raises:
        UserError: The file is not YAML, has a tag other than the two, or has no templates.
    """
    try:
        with open(path, encoding="utf-8") as file:
            value = yaml.load(file, _Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{path}{line}: not promptsource's YAML: {problem}") from None
    if not isinstance(value, dict) or not isinstance(value.get("templates"), dict):
        raise UserError(f"{path}: expected a mapping with templates")
    return value


def read_templates(path: str) -> list[Template]:
    """Return the templates of a file, sorted by name.

    Raises:
        UserError: As for `read_yaml` and `make_template`, or two templates have the same name.
    """
    templates: dict[str, Template] = {}
    for key, fields in read_yaml(path)["templates"].items():
        template = make_template(fields, f"{path}: {key}")
        if template.name in templates:
            raise UserError(f"{path}: two templates are called {template.name!r}")
        templates[template.name] = template
    return [templates[name] for name in sorted(templates)]


def make_template(fields: Any, where: str) -> Template:
    """Return the template of a YAML mapping.

    Args:
        fields: The mapping.
        where: What an error calls it.

    Raises:
        UserError: The name or the text is missing.
    """
    fields = fields if isinstance(fields, dict) else {}
    for name in ("name", "jinja"):
        if not isinstance(fields.get(name), str):
            raise UserError(f"{where}: {name} is missing; expected a text")
    metadata = fields.get("metadata") or {}
    return Template(
        name=fields["name"],
        jinja=fields["jinja"],
        answer_choices=fields.get("answer_choices") or "",
        id=str(fields.get("id") or ""),
        reference=str(fields.get("reference") or ""),
        original_task=bool(metadata.get("original_task")),
        choices_in_prompt=bool(metadata.get("choices_in_prompt")),
        metrics=tuple(metadata.get("metrics") or ()),
        languages=tuple(metadata.get("languages") or ()),
    )


def find_templates(folder: str) -> dict[tuple[str, str], str]:
    """Find every `templates.yaml` of a template folder.

    Returns:
        (data set, subset or "") -> path.
    """
    found = {}
    for place, folders, files in os.walk(folder):
        folders.sort()
        if "templates.yaml" not in files:
            continue
        relative = os.path.relpath(place, folder)
        dataset, *subset = ("",) if relative == "." else relative.split(os.sep)
        found[dataset, "/".join(subset)] = os.path.join(place, "templates.yaml")
    return found


def _shorten(value: Any) -> Any:
    """Return the text of a value that a template shows, with at most `TEXT_LENGTH` characters."""
    text = str(value)
    if len(text) <= TEXT_LENGTH:
        return text
    return filters.do_truncate(_ENVIRONMENT, text, TEXT_LENGTH)


@jinja2.pass_context
def _choice(context: jinja2.runtime.Context, options: Any) -> Any:
    options = list(options)
    if not options:
        raise ValueError("nothing to choose from")
    return context[_DRAWS].choice(options)


def _most_frequent(items: Sequence[Any]) -> list[Any]:
    counts = collections.Counter(items)
    most = max(counts.values(), default=0)
    return [item for item, count in counts.items() if count == most]


def _environment(**options: Any) -> sandbox.SandboxedEnvironment:
    environment = sandbox.SandboxedEnvironment(autoescape=False, **options)
    environment.filters |= {"choice": _choice, "random": _choice, "most_frequent": _most_frequent}
    environment.filters["highlight"] = str
    environment.globals |= {"zip": zip, "enumerate": enumerate}
    return environment


_ENVIRONMENT = _environment(finalize=_shorten)
# The joined answers are one value, which must not be shortened.
_CHOICES_ENVIRONMENT = _environment()


@functools.lru_cache(maxsize=4096)
def _compiled(text: str, environment: sandbox.SandboxedEnvironment) -> jinja2.Template:
    return environment.from_string(text)


def variables(template: Template) -> set[str]:
    """Return the fields of a row that a template reads.

    Raises:
        jinja2.TemplateError: The Jinja does not parse.
    """
    names: set[str] = set()
    for text in (template.jinja, template.answer_choices):
        names |= meta.find_undeclared_variables(_ENVIRONMENT.parse(text))
    return names - {"answer_choices", *_ENVIRONMENT.globals}


def answer_choices(template: Template, row: Mapping[str, Any], draws: Draws) -> list[str]:
    """Return the answers to choose from; none if the template has no such list."""
    if not template.answer_choices:
        return []
    compiled = _compiled(template.answer_choices, _CHOICES_ENVIRONMENT)
    rendered = compiled.render(_protect_row(row) | {_DRAWS: draws})
    return [_strip(part) for part in rendered.split(SEPARATOR)]


def apply(template: Template, row: Mapping[str, Any], draws: Draws) -> tuple[str, str] | None:
    """Return the input and the target that a template makes of a row, None if it makes nothing.

    Templates of promptsource leave out rows by rendering nothing (with an `if` around all of the
    text). T0 drops the rows whose input or target is empty.

    Raises:
        ValueError: There is no target, or more than one.
        Exception: One of `RENDERING_ERRORS`, because the template does not expect such a row.
    """
    values = _protect_row(row)
    choices = answer_choices(template, row, draws)
    if choices:
        values["answer_choices"] = _protect(choices)
    rendered = _compiled(template.jinja, _ENVIRONMENT).render(values | {_DRAWS: draws})
    if not rendered.strip():
        return None
    parts = [_strip(part) for part in rendered.split(SEPARATOR)]
    if len(parts) != 2:
        raise ValueError(f"{len(parts)} parts; expected an input, {SEPARATOR} and one target")
    text, target = parts
    return (text, target) if text and target else None


def reason(error: Exception) -> str:
    """Return the message of a rendering error, as one line."""
    return (getattr(error, "message", None) or str(error)).split("\n")[0]


def _protect_row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _protect(value) for key, value in row.items()}


def _protect(value: Any) -> Any:
    """Replace the separator inside all texts of a value.

    Lists and mappings are copied, so that a template cannot change the row.
    """
    if isinstance(value, str):
        return value.replace(SEPARATOR, _PROTECTED)
    if isinstance(value, Mapping):
        return {key: _protect(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_protect(inner) for inner in value]
    return value


def _strip(part: str) -> str:
    """Return a rendered part without space around it, and with the row's own separators again."""
    return part.strip().replace(_PROTECTED, SEPARATOR)
