"""The settings of a sweep: which fields of the base config are set to what in each run.

A list of settings is a YAML or JSON file, or a Python file with `get_sweep()` that returns the same
values. Three forms are read:

    data.max_tasks: [1, 2, 4]          # every combination, a seed beside a seed, as axolotl's
    optimizer: {learning_rate: 1e-3}   # sections may be nested; one value is the same in all runs
    seed: [0, 1, 2]

    method: grid                       # the same, as wandb's
    parameters:
      data.max_tasks: {values: [1, 2, 4]}
      optimizer.learning_rate: {value: 1e-3}

    - {data.max_tasks: 1, train.steps: 100}      # one run each
    - {name: long, data.max_tasks: 1, train.steps: 1000}
"""

import itertools
import os
import re
import runpy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from ift_jax.config import yaml_files
from ift_jax.config.files import flat
from ift_jax.errors import UserError, counted
from ift_jax.io.files import json_digest

SEED = "seed"  # The field whose values are repetitions of a setting rather than other settings.
_NAME = "name"
_LONGEST_NAME = 100  # A folder's name may have 255 bytes.
_MOST_RUNS = 10_000
_RESERVED = ("logs", "sweep.html", "sweep.json", "sweep.svg", "sweep_runs.json")


class Setting(NamedTuple):
    """One run of a sweep.

    Attributes:
        name: The folder of the setting, the same for all of its seeds, made of what it sets alone:
            a sweep that gets further runs finds the old ones.
        values: Dotted name of a field -> its value, without the seed.
        seed: The run's seed; None: the base's.
    """

    name: str
    values: Mapping[str, Any]
    seed: int | None

    @property
    def folder(self) -> str:
        """The run's folder inside the sweep's."""
        return self.name if self.seed is None else os.path.join(self.name, f"seed={self.seed}")

    @property
    def overrides(self) -> list[str]:
        """The run's flags `--config.section.field=value`."""
        values = {**self.values} if self.seed is None else {**self.values, SEED: self.seed}
        return [f"--config.{field}={override_text(value)}" for field, value in values.items()]


def override_text(value: Any) -> str:
    """Return a value as `--config.section.field=` takes it."""
    return repr(tuple(value)) if isinstance(value, list | tuple) else str(value)


def read_settings(path: str) -> list[Setting]:
    """Read a file of settings, in one of the forms above.

    Raises:
        UserError: The file is missing, or holds no settings.
    """
    values = _values(path)
    if isinstance(values, list):
        runs = [_listed(entry, f"{path}: run {number}") for number, entry in enumerate(values, 1)]
        return checked(runs, path)
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected fields with lists of values, or a list of runs")
    if "parameters" in values:
        values = _wandb_values(values, path)
    given = _fields(values, path)
    return grid({name: v if isinstance(v, list) else [v] for name, v in given.items()}, path)


def _fields(values: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """Return values by the dotted names of their fields."""
    for name, value in values.items():
        if not isinstance(name, str):
            raise UserError(f"{where}: expected the name of a field; got {name!r:.60}")
        if isinstance(value, dict):
            _fields(value, f"{where}: {name}")
    return flat(values)


def _values(path: str) -> Any:
    if not os.path.isfile(path):
        raise UserError(f"--sweep {path}: no such file; expected YAML, JSON or Python")
    if path.endswith(".py"):
        try:
            made = runpy.run_path(path)["get_sweep"]()
        except Exception as error:  # It is the user's code.
            why = "has no get_sweep()" if isinstance(error, KeyError) else repr(error)
            raise UserError(f"{path}: {why}; expected get_sweep() that returns runs") from error
        return made
    if not yaml_files.is_yaml(path):
        ends = ", ".join(yaml_files.ENDINGS)
        raise UserError(f"--sweep {path}: expected a file that ends in {ends} or .py")
    try:
        with open(path, encoding="utf-8-sig") as file:
            return yaml_files.parse_values(file.read())
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8: {error.reason}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from error


def _wandb_values(values: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return the lists of values of a sweep as wandb writes it; only grids are read."""
    if values.get("method", "grid") != "grid":
        raise UserError(f"{path}: method {values['method']!r}: expected 'grid'")
    parameters = values["parameters"]
    if not isinstance(parameters, dict):
        raise UserError(f"{path}: parameters: expected fields; got {parameters!r:.60}")
    found = {}
    for name, of_one in parameters.items():
        if not isinstance(of_one, dict) or len({"value", "values"} & of_one.keys()) != 1:
            raise UserError(f"{path}: parameters.{name}: expected 'values' or 'value'")
        found[name] = of_one.get("values", of_one.get("value"))
    return found


def _listed(entry: Any, where: str) -> Setting:
    """Return the setting of one run of a list."""
    if not isinstance(entry, dict):
        raise UserError(f"{where}: expected fields with values; got {entry!r:.60}")
    given = _fields(entry, where)
    name = given.pop(_NAME, None)
    seed = given.pop(SEED, None)
    return Setting(folder_name(given) if name is None else _plain(str(name)), given, seed)


def parse_grid(items: Iterable[str]) -> dict[str, list[Any]]:
    """Return the values of flags FIELD=VALUE,VALUE,...

    A value in brackets, such as [a,b], is a tuple.

    Raises:
        UserError: One has another form, or names a field twice.
    """
    found: dict[str, list[Any]] = {}
    for item in items:
        field, equals, text = item.removeprefix("config.").partition("=")
        values: Any = None
        if field and equals and text:
            try:
                values = yaml_files.parse_values(f"[{text}]")
            except yaml.YAMLError:
                values = None
        if not values:
            raise UserError(f"--grid {item}: expected FIELD=VALUE,VALUE, as train.steps=100,200")
        if field in found:
            raise UserError(f"--grid {item}: {field} is given twice")
        found[field] = values
    return found


def parse_seeds(text: str) -> list[int]:
    """Return the seeds of the flag `--seeds`, such as those of "0,1,2".

    Raises:
        UserError: They are not different whole numbers.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch("[0-9]{1,18}", part) for part in parts):
        raise UserError(f"--seeds {text}: expected whole numbers with commas between, as 0,1,2")
    seeds = [int(part) for part in parts]
    for seed in seeds:
        if seeds.count(seed) > 1:
            raise UserError(f"--seeds {text}: {seed} is given twice")
    return seeds


def grid(values: Mapping[str, Sequence[Any]], where: str) -> list[Setting]:
    """Return every combination of values; the first field changes least often, the seed most.

    Args:
        values: Field -> its values.
        where: Who gave them, for messages.
    """
    seeds = list(values.get(SEED, [None]))
    fields = [name for name in values if name != SEED]
    n_runs = len(seeds)
    for name in fields:
        n_runs *= len(values[name])
    if not 0 < n_runs <= _MOST_RUNS:
        raise UserError(f"{where}: {counted(n_runs, 'run')}; expected 1 to {_MOST_RUNS:,}")
    combinations = itertools.product(*(values[name] for name in fields))
    settings = [dict(zip(fields, combination, strict=True)) for combination in combinations]
    runs = [Setting(folder_name(each), each, seed) for each in settings for seed in seeds]
    return checked(runs, where)


def with_seeds(runs: Sequence[Setting], seeds: Sequence[Any], where: str) -> list[Setting]:
    """Return each run once for every seed, in place of the seeds that it has.

    Args:
        runs: The runs.
        seeds: The seeds.
        where: Who gave them, for messages.
    """
    by_name = {run.name: run for run in runs}
    return checked([r._replace(seed=seed) for r in by_name.values() for seed in seeds], where)


def checked(runs: Sequence[Setting], where: str) -> list[Setting]:
    """Return runs after checking that there are some, each with a folder of its own.

    Raises:
        UserError: There is no run, or two have one folder, or a seed is no whole number.
    """
    if not runs:
        raise UserError(f"{where}: expected at least one run")
    seen = set()
    named: dict[str, Setting] = {}
    for run in runs:
        if run.name in _RESERVED:
            raise UserError(
                f"{where}: name {run.name!r}: the sweep writes that itself; choose another name"
            )
        first = named.setdefault(run.name, run)
        if first.values != run.values or (first.seed is None) != (run.seed is None):
            raise UserError(
                f"{where}: two runs named {run.name!r} differ beyond the seed; name them apart"
            )
        if run.seed is not None and (isinstance(run.seed, bool) or not isinstance(run.seed, int)):
            raise UserError(f"{where}: seed {run.seed!r}: expected a whole number")
        if run.folder in seen:
            raise UserError(
                f"{where}: two runs would be in the folder {run.folder}; name them apart, or give "
                "each value once"
            )
        seen.add(run.folder)
    return list(runs)


def folder_name(values: Mapping[str, Any]) -> str:
    """Return the folder of a setting, such as "data.max_tasks=4_train.steps=100"."""
    parts = [f"{field}={override_text(value)}" for field, value in values.items()]
    return _plain("_".join(parts) or "base")


def _plain(name: str) -> str:
    """Return a name as one that every file system takes; a hash tells changed ones apart."""
    plain = re.sub(r"[^\w.=+-]+", "-", name)[:_LONGEST_NAME].strip("-") or "run"
    if not plain.strip("."):  # "." is the sweep's own folder, ".." the one above it.
        plain = "run"
    return plain if plain == name else f"{plain}-{json_digest(name)[:6]}"
