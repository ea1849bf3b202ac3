"""Finds the modules that register the tasks and mixtures of a config.

`ift_jax` does not import tasks itself. A config names one module (`data.systems`, "tasks" by
default) with a table `SYSTEMS`, which maps the beginnings of the names of tasks and mixtures to the
module that registers them.
"""

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Mapping

from ift_jax.errors import UserError, of_users_code

FEW_SHOT_MODULE = "ift_jax.sources.few_shot"  # Registers a k-shot twin of any text task.
SHOTS = (0, 1, 2, 5, 16, 32)  # The twins that it registers have so many solved examples.
FEW_SHOT_NAME = re.compile(r"_\d+_shot$")  # The end of a twin's name.


def add_tasks_folder(config_file: str = "") -> None:
    """Puts the folder that holds `tasks/` first on the Python path, so recipes work anywhere.

    That is the nearest folder above the config file that has a folder `tasks`; if none has, it is
    the working folder. A folder that is a package itself is passed over: its `tasks` is a part of
    the package, such as `tests/tasks`.

    Args:
        config_file: The config file; "" for the working folder.
    """
    folder = os.getcwd()
    above = os.path.dirname(os.path.abspath(config_file)) if config_file else ""
    while above:
        is_package = os.path.exists(os.path.join(above, "__init__.py"))
        if os.path.isdir(os.path.join(above, "tasks")) and not is_package:
            folder = above
            break
        parent = os.path.dirname(above)
        above = "" if parent == above else parent
    if sys.path[0] != folder:
        sys.path.insert(0, folder)


def append_working_folder() -> None:
    """Puts the working folder last on the Python path: a console script does not put it there."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def systems_table(module: str) -> Mapping[str, str]:
    """Reads the table `SYSTEMS` of a module; it is empty if there is no such module or table.

    Raises:
        UserError: `SYSTEMS` does not map strings to strings, or the module raises an exception.
    """
    with of_users_code(f"config.data.systems: module {module!r}"):
        try:
            if not module or importlib.util.find_spec(module) is None:
                return {}
        except ModuleNotFoundError:  # A package above the module is missing.
            return {}
        table = getattr(importlib.import_module(module), "SYSTEMS", {})
    if not isinstance(table, Mapping) or not all(
        isinstance(text, str) for pair in table.items() for text in pair
    ):
        raise UserError(
            f"config.data.systems: {module}.SYSTEMS must map the beginnings of names to modules"
        )
    return table


def modules_of(systems: Mapping[str, str], *names: str) -> tuple[str, ...]:
    """Returns the modules that register tasks and mixtures of these names.

    The longest beginning in the table decides. A name that belongs to no system adds nothing; a
    name that ends in `_<k>_shot` adds the module that registers k-shot twins.

    Args:
        systems: The beginnings of names -> modules.
        *names: Names of tasks and mixtures; empty ones are ignored.
    """
    found: list[str] = []
    for name in filter(None, names):
        beginnings = [beginning for beginning in systems if name.startswith(beginning)]
        if beginnings:
            found.append(systems[max(beginnings, key=len)])
    if any(FEW_SHOT_NAME.search(name) for name in names):
        found.append(FEW_SHOT_MODULE)
    return tuple(dict.fromkeys(found))
