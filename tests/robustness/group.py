"""What a group of the fuzz harness is: a kind of file, how it is spoiled, read, and judged."""

import abc
import dataclasses
import importlib
import pkgutil
import random
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Case:
    """One input.

    Attributes:
        change: What was done to a good input, for the report; empty if nothing was.
        path: The file or folder that is read; a refusal must name it or a file in it.
        extra: Whatever else the group needs to read or judge it.
    """

    change: str
    path: Path
    extra: Any = None


class Group(abc.ABC):
    """A kind of input. Input number i depends on (seed, name, i) alone.

    Attributes:
        names_file: Whether every refusal must name the file that is wrong.
    """

    names_file: bool = True

    @abc.abstractmethod
    def make(self, rng: random.Random, folder: Path) -> Case:
        """Write an input into an empty folder."""

    @abc.abstractmethod
    def read(self, case: Case) -> Any:
        """Read an input as a command would.

        Raises:
            UserError: The input is refused.
        """

    def complaint(self, case: Case, value: Any) -> str:
        """Return what is wrong with having accepted an input as `value`; empty if nothing is.

        A reference implementation judges, where there is one and it is installed.
        """
        return ""


def group_names() -> list[str]:
    """Return the names of all groups, which are the modules of `tests.robustness.groups`."""
    package = importlib.import_module("tests.robustness.groups")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def open_group(name: str) -> Group:
    """Return a group by its name."""
    return importlib.import_module(f"tests.robustness.groups.{name}").GROUP
