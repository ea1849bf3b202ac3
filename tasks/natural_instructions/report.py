r"""Print a run's Natural Instructions scores by category.

    python -m tasks.natural_instructions.report WORKDIR [ROOT]

reads `evaluation.json` of a run and the task files of its data.root (or of ROOT), and prints each
category with its headline metric, as Super-NaturalInstructions (arXiv:2204.07705) reports them.
The k-shot twins of `ift_jax.sources.few_shot` count as their tasks.
"""

import os
import re
import sys
from typing import Any

from ift_jax.errors import UserError
from ift_jax.io.json_reader import read_json_file
from tasks.natural_instructions import encodings
from tasks.natural_instructions import tasks as natural_instructions
from tasks.natural_instructions.metrics import by_category

_MODULES = {
    "tasks.natural_instructions.tasks": natural_instructions.register,
    "tasks.natural_instructions.encodings": encodings.register,
}


def report(workdir: str, root: str = "") -> dict[str, dict[str, Any]]:
    """Return the scores by category of each evaluation set's Natural Instructions tasks.

    Raises:
        UserError: The workdir holds no evaluation, or its data is missing.
    """
    data = _read(os.path.join(workdir, "config.json"))["data"]
    scores = _read(os.path.join(workdir, "evaluation.json"))
    for name in data["modules"]:
        if name in _MODULES:
            _MODULES[name](root or data["root"])
    result = {}
    for title, values in scores.items():
        zero_shot_names = {name: re.sub(r"_\d+_shot$", "", name) for name in values["tasks"]}
        known = natural_instructions.categories(set(zero_shot_names.values()))
        categories = {
            name: known[zero_shot]
            for name, zero_shot in zero_shot_names.items()
            if zero_shot in known
        }
        groups = by_category(values["tasks"], categories)
        if groups:
            result[title] = groups
    if not result:
        raise UserError(f"{workdir}: its evaluation has no Natural Instructions task")
    return result


def _read(path: str) -> Any:
    try:
        return read_json_file(path)
    except UserError as error:
        raise UserError(f"{error}; expected what a run writes when it ends") from None


def lines(groups: dict[str, dict[str, Any]]) -> list[str]:
    """Return the scores as the lines of a table, in percent."""
    width = max(map(len, groups))
    result = [f"  {'category':<{width}}  tasks  examples   score  metric"]
    for name, group in groups.items():
        score = "      " if group["score"] is None else f"{100 * group['score']:6.2f}"
        counts = f"{group['tasks']:>5}  {group['examples']:>8}"
        result.append(f"  {name:<{width}}  {counts}  {score}  {group['headline']}")
    return result


def main(arguments: list[str]) -> int:
    """Print the report and return the exit status."""
    if not 1 <= len(arguments) <= 2 or arguments[0].startswith("-"):
        print("usage: python -m tasks.natural_instructions.report WORKDIR [ROOT]", file=sys.stderr)
        return 2
    try:
        for title, groups in report(*arguments).items():
            print("\n".join([title, *lines(groups)]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
