r"""Checks promptsource templates: `python -m tasks.t0.lint FOLDER`.

For each `templates.yaml` below the folder: it is read by the safe loader; ids and names are
unique, and an id is its key; the Jinja parses; exactly one separator lies between input and
target; the answers to choose from parse and are at least two; and, where the folder also has
rows (`train.jsonl` and the like beside the templates), every field that a template reads is
there and the first rows can be rendered. Prints a line a problem and exits with 1 if there are
any.
"""

import sys

import jinja2

from ift_jax.data.randomness import Draws
from ift_jax.errors import UserError
from ift_jax.sources.dataset_rows import local_copy
from ift_jax.sources.row_files import read_rows
from tasks.t0 import promptsource
from tasks.t0.promptsource import SEPARATOR, Template

_ROWS = 5


def lint(folder: str) -> tuple[int, list[str]]:
    """Returns the number of templates below a folder, and their problems as lines."""
    count, problems = 0, []
    files = promptsource.find_templates(folder)
    if not files:
        return 0, [f"{folder}: no templates.yaml in it or its folders"]
    ids: dict[str, str] = {}
    for (dataset, subset), path in sorted(files.items()):
        try:
            entries = promptsource.read_yaml(path)["templates"]
        except UserError as error:
            problems.append(str(error))
            continue
        rows = _rows(folder, dataset, subset)
        names: set[str] = set()
        for key, fields in entries.items():
            count += 1
            where = f"{path}: {key}"
            try:
                template = promptsource.make_template(fields, where)
            except UserError as error:
                problems.append(str(error))
                continue
            where = f"{path}: {template.name!r}"
            if template.id != str(key):
                problems.append(f"{where}: its id {template.id!r} is not its key {key!r}")
            if template.id in ids:
                problems.append(f"{where}: the id is taken, by {ids[template.id]}")
            ids.setdefault(template.id, where)
            if template.name in names:
                problems.append(f"{where}: the name occurs twice")
            names.add(template.name)
            found = _text_problems(template) or _row_problems(template, rows)
            problems += [f"{where}: {problem}" for problem in found]
    return count, problems


def _text_problems(template: Template) -> list[str]:
    try:
        promptsource.variables(template)
    except jinja2.TemplateError as error:
        return [f"the Jinja does not parse: {promptsource.reason(error)}"]
    problems = []
    if not template.name.strip():
        problems.append("the name is empty")
    found = template.jinja.count(SEPARATOR)
    if found != 1:
        problems.append(f"{found} separators {SEPARATOR}; expected one")
    choices = template.answer_choices
    if choices and SEPARATOR not in choices and "join" not in choices:
        problems.append("answer_choices is a single answer; expected at least two")
    if "answer_choices" in template.jinja and not choices:
        problems.append("it reads answer_choices but has none")
    return problems


def _rows(folder: str, dataset: str, subset: str) -> list[dict]:
    for split in ("train", "validation", "test"):
        path = local_copy(folder, f"{dataset}/{subset}".strip("/"), split)
        if path:
            return [dict(row.fields()) for row in read_rows(path, stop=_ROWS)]
    return []


def _row_problems(template: Template, rows: list[dict]) -> list[str]:
    wanted = promptsource.variables(template)
    for number, row in enumerate(rows):
        missing = sorted(wanted - set(row))
        if missing:
            return [f"reads {missing[0]!r}; the rows have: {', '.join(row)}"]
        try:
            promptsource.apply(template, row, Draws("lint", number))
        except promptsource.RENDERING_ERRORS as error:
            return [f"row {number}: {promptsource.reason(error)}"]
    return []


def main(arguments: list[str]) -> int:
    """Lints the folders; returns the exit status."""
    if not arguments or arguments[0].startswith("-"):
        print("usage: python -m tasks.t0.lint FOLDER [FOLDER ...]", file=sys.stderr)
        return 2
    total, problems = 0, []
    for folder in arguments:
        count, found = lint(folder)
        total += count
        problems += found
    print("\n".join([*problems, f"{total} templates, {len(problems)} problems"]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
