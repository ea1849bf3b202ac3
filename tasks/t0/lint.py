r"""Check promptsource templates: `python -m tasks.t0.lint FOLDER`.

The checks, for each `templates.yaml` below the folder:

- the safe loader reads it;
- ids and names are unique, and an id is the key of its template;
- the Jinja parses;
- exactly one separator lies between input and target;
- the answers to choose from parse, and there are at least two;
- if rows lie beside the templates (`train.jsonl` or the like), they have every field that a
  template reads, and the first of them can be rendered.

It prints a line for each problem and exits with 1 if there are any.
"""

import sys
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jinja2

from ift_jax.data.randomness import Draws
from ift_jax.errors import UserError
from ift_jax.sources.dataset_rows import local_copy
from ift_jax.sources.row_files import read_rows
from tasks.t0 import promptsource
from tasks.t0.promptsource import SEPARATOR, Template

_ROWS = 5  # The number of rows that are rendered.

Row = dict[str, Any]


class LintResult(NamedTuple):
    """The number of templates that were checked, and a line for each problem."""

    templates: int
    problems: list[str]


def lint(folder: str) -> LintResult:
    """Check all templates below a folder."""
    files = promptsource.find_templates(folder)
    if not files:
        return LintResult(0, [f"{folder}: no templates.yaml in it or its folders"])
    checker = _Checker()
    for (dataset, subset), path in sorted(files.items()):
        checker.check_file(path, _read_first_rows(folder, dataset, subset))
    return LintResult(checker.templates, checker.problems)


class _Checker:
    """Checks files one after another, and collects what is wrong with them.

    Attributes:
        templates: The number of templates.
        problems: A line for each problem.
    """

    def __init__(self) -> None:
        self.templates = 0
        self.problems: list[str] = []
        self._place_of_id: dict[str, str] = {}

    def check_file(self, path: str, rows: list[Row]) -> None:
        try:
            entries = promptsource.read_yaml(path)["templates"]
        except UserError as error:
            self.problems.append(str(error))
            return
        names: set[str] = set()
        for key, fields in entries.items():
            self.templates += 1
            try:
                template = promptsource.make_template(fields, f"{path}: {key}")
            except UserError as error:
                self.problems.append(str(error))
                continue
            place = f"{path}: {template.name!r}"
            self._check_names(template, key, place, names)
            names.add(template.name)
            found = _text_problems(template) or _row_problems(template, rows)
            self._add(place, found)

    def _check_names(self, template: Template, key: Any, place: str, names: set[str]) -> None:
        if template.id != str(key):
            self._add(place, [f"its id {template.id!r} is not its key {key!r}"])
        if template.id in self._place_of_id:
            self._add(place, [f"the id is taken, by {self._place_of_id[template.id]}"])
        self._place_of_id.setdefault(template.id, place)
        if template.name in names:
            self._add(place, ["the name occurs twice"])

    def _add(self, place: str, problems: Iterable[str]) -> None:
        self.problems += [f"{place}: {problem}" for problem in problems]


def _text_problems(template: Template) -> list[str]:
    """Return what is wrong with the text of a template."""
    try:
        promptsource.variables(template)
    except jinja2.TemplateError as error:
        return [f"the Jinja does not parse: {promptsource.reason(error)}"]
    problems = []
    if not template.name.strip():
        problems.append("the name is empty")
    separators = template.jinja.count(SEPARATOR)
    if separators != 1:
        problems.append(f"{separators} separators {SEPARATOR}; expected one")
    choices = template.answer_choices
    if choices and SEPARATOR not in choices and "join" not in choices:
        problems.append("answer_choices is a single answer; expected at least two")
    if "answer_choices" in template.jinja and not choices:
        problems.append("it reads answer_choices but has none")
    return problems


def _read_first_rows(folder: str, dataset: str, subset: str) -> list[Row]:
    """Return the first rows that lie beside a data set's templates, if there are any."""
    for split in ("train", "validation", "test"):
        path = local_copy(folder, f"{dataset}/{subset}".strip("/"), split)
        if path:
            return [dict(row.fields()) for row in read_rows(path, stop=_ROWS)]
    return []


def _row_problems(template: Template, rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the first thing that goes wrong when a template is applied to rows."""
    variables = promptsource.variables(template)
    for number, row in enumerate(rows):
        missing = sorted(variables - set(row))
        if missing:
            return [f"reads {missing[0]!r}; the rows have: {', '.join(row)}"]
        try:
            promptsource.apply(template, row, Draws("lint", number))
        except promptsource.RENDERING_ERRORS as error:
            return [f"row {number}: {promptsource.reason(error)}"]
    return []


def main(arguments: list[str]) -> int:
    """Check the templates of folders; return the exit status."""
    if not arguments or arguments[0].startswith("-"):
        print("usage: python -m tasks.t0.lint FOLDER [FOLDER ...]", file=sys.stderr)
        return 2
    results = [lint(folder) for folder in arguments]
    problems = [problem for result in results for problem in result.problems]
    total = sum(result.templates for result in results)
    print("\n".join([*problems, f"{total} templates, {len(problems)} problems"]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
