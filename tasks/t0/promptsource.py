"""Promptsource's templates (Bach et al. 2022, arXiv:2202.01279): read, and applied to rows.

A folder `<dataset>/[<subset>/]templates.yaml` holds templates of Jinja text: the input, `|||`,
the target; and, for questions with a fixed choice, the answers. Two YAML tags are known, and
nothing else is ever constructed; Jinja runs in its sandbox. What promptsource draws with an
unseeded `random` (the filters `choice` and `random`) comes from the example's own draws here.
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
TEXT_LENGTH = 2048  # Characters of a value that a template shows; promptsource's own bound.
_PROTECTED = "\ue000pipes\ue000"  # Stands for the separator inside a row's text.
_DRAWS = "_draws"
# What a template's Jinja raises on a row that is not what it expects.
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
    """One prompt of a dataset.

    Attributes:
      name: unique within its file.
      jinja: input and target, with one separator between.
      answer_choices: Jinja of the answers, with separators between; "" if there are none.
      original_task: whether it asks what the dataset was made for.
      choices_in_prompt: whether the input names the answers.
      metrics: promptsource's names.
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
    """Plain YAML and promptsource's two tags, read as mappings."""


def _mapping(loader: Any, node: yaml.Node) -> Any:
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("!Template", _mapping)
_Loader.add_constructor("!TemplateMetadata", _mapping)


def read_yaml(path: str) -> dict[str, Any]:
    """Returns the content of a `templates.yaml`: its `templates` by id.

    Raises:
      UserError: not YAML, another tag than the two, or no templates; names the line.
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
    """Returns a file's templates, sorted by name.

    Raises:
      UserError: as `read_yaml`, or a template without name or text, or a name twice.
    """
    templates: dict[str, Template] = {}
    for key, fields in read_yaml(path)["templates"].items():
        template = make_template(fields, f"{path}: {key}")
        if template.name in templates:
            raise UserError(f"{path}: two templates are called {template.name!r}")
        templates[template.name] = template
    return [templates[name] for name in sorted(templates)]


def make_template(fields: Any, where: str) -> Template:
    """Returns the template of a YAML mapping; raises a UserError that names the field."""
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
    """Returns (dataset, subset or "") -> path of every `templates.yaml` of a template folder."""
    found = {}
    for place, folders, files in os.walk(folder):
        folders.sort()
        if "templates.yaml" in files:
            parts = os.path.relpath(place, folder).split(os.sep)
            dataset, subset = (parts[0], parts[1:]) if parts[0] != "." else ("", [])
            found[dataset, "/".join(subset)] = os.path.join(place, "templates.yaml")
    return found


def _shown(value: Any) -> Any:
    text = str(value)
    return filters.do_truncate(_ENVIRONMENT, text, TEXT_LENGTH) if len(text) > TEXT_LENGTH else text


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


_ENVIRONMENT = _environment(finalize=_shown)
_CHOICES_ENVIRONMENT = _environment()  # A joined list of answers must not be shortened.


@functools.lru_cache(maxsize=4096)
def _compiled(text: str, environment: sandbox.SandboxedEnvironment) -> jinja2.Template:
    return environment.from_string(text)


def variables(template: Template) -> set[str]:
    """Returns the fields of a row that a template reads.

    Raises:
      jinja2.TemplateError: its Jinja has a mistake.
    """
    texts = (template.jinja, template.answer_choices)
    names = set().union(*(meta.find_undeclared_variables(_ENVIRONMENT.parse(t)) for t in texts))
    return names - {"answer_choices", *_ENVIRONMENT.globals}


def answer_choices(template: Template, row: Mapping[str, Any], draws: Draws) -> list[str]:
    """Returns the answers to choose from; none if the template has no such list."""
    if not template.answer_choices:
        return []
    compiled = _compiled(template.answer_choices, _CHOICES_ENVIRONMENT)
    rendered = compiled.render(_guarded(row) | {_DRAWS: draws})
    return [_free(part) for part in rendered.split(SEPARATOR)]


def apply(template: Template, row: Mapping[str, Any], draws: Draws) -> tuple[str, str] | None:
    """Returns a row's input and target, or None where the template makes nothing of it.

    Promptsource's templates leave out rows by rendering nothing (an `if` around all of it); T0
    drops those whose input or target is empty.

    Raises:
      ValueError: no target, or more than one.
      Exception: one of `RENDERING_ERRORS`: the row is not what the template expects.
    """
    values = _guarded(row)
    choices = answer_choices(template, row, draws)
    if choices:
        values["answer_choices"] = [choice.replace(SEPARATOR, _PROTECTED) for choice in choices]
    rendered = _compiled(template.jinja, _ENVIRONMENT).render(values | {_DRAWS: draws})
    if not rendered.strip():
        return None
    parts = [_free(part) for part in rendered.split(SEPARATOR)]
    if len(parts) != 2:
        raise ValueError(f"{len(parts)} parts; expected an input, {SEPARATOR} and one target")
    return (parts[0], parts[1]) if all(parts) else None


def reason(error: Exception) -> str:
    """Returns what an error of rendering says, in one line."""
    return (getattr(error, "message", None) or str(error)).split("\n")[0]


def _guarded(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _protect(value) for key, value in row.items()}


def _protect(value: Any) -> Any:
    # Lists and mappings are copied: what a template does to them stays with it.
    if isinstance(value, str):
        return value.replace(SEPARATOR, _PROTECTED) if SEPARATOR in value else value
    if isinstance(value, Mapping):
        return {key: _protect(inner) for key, inner in value.items()}
    return [_protect(inner) for inner in value] if isinstance(value, list | tuple) else value


def _free(part: str) -> str:
    return part.strip().replace(_PROTECTED, SEPARATOR)
