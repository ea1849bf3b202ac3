"""What a model was made from: the models that runs, imports and merges began with.

A run's config names its model in `model.init_from`. A workdir that no run trained has a file
`origin.json` instead, which says what `ift import` or `ift merge` made it from.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

from ift_jax.checkpoint.run_description import CONFIG_FILE, RUN_FILE
from ift_jax.config import files as config_files
from ift_jax.config.schema import Config
from ift_jax.errors import UserError
from ift_jax.io.hub_names import name_in_cache
from ift_jax.io.json_reader import read_json_object
from ift_jax.io.paths import Workdir, absolute, is_remote

ORIGIN_FILE = "origin.json"
_MOST_STAGES = 50  # Workdirs that name each other in a circle end here.


class Ingredient(NamedTuple):
    """A model that another one was made from.

    Attributes:
        path: Its workdir, folder or file.
        step: The checkpoint of a run; 0 for a released model.
        weight: Its share in a mean; 1 for an import.
    """

    path: str
    step: int
    weight: float


@dataclasses.dataclass(frozen=True)
class Origin:
    """The contents of `origin.json`, which earlier versions did not write.

    Attributes:
        command: "import" or "merge".
        models: What it was made from.
    """

    command: str
    models: tuple[Ingredient, ...]

    @classmethod
    def of(cls, command: str, models: Sequence[Ingredient]) -> Self:
        """Describe what a command made, with paths that mean the same from everywhere."""
        return cls(command, tuple(model._replace(path=absolute(model.path)) for model in models))

    @classmethod
    def read(cls, workdir: str) -> Self | None:
        """Read the file of a local workdir; None if there is none.

        Raises:
            UserError: The file is not what was written.
        """
        path = os.path.join(workdir, ORIGIN_FILE)
        if not os.path.exists(path):
            return None
        fields = read_json_object(path)
        try:
            models = tuple(Ingredient(**model) for model in fields["models"])
            return cls(str(fields["command"]), models)
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: is not what ift_jax wrote; restore it from a copy") from error

    def to_json(self) -> dict[str, Any]:
        """Return what `read` reads."""
        return {"command": self.command, "models": [model._asdict() for model in self.models]}


class BaseModel(NamedTuple):
    """A model that no run of ours trained, and that a model goes back to.

    Attributes:
        label: The last part of its path.
        hub_name: Its name on the Hugging Face hub; "" if the path does not tell.
        runs: The runs between the two by the last parts of their paths, the newest first.
    """

    label: str
    hub_name: str
    runs: tuple[str, ...] = ()


def label(path: str) -> str:
    """Return the last part of a path, which says nothing about the machine that it is on."""
    return os.path.basename(path.rstrip("/")) or path


def base_models(workdir: str, config: Config) -> list[BaseModel]:
    """Return the models that a workdir's model goes back to; none if it began with fresh weights.

    Args:
        workdir: A local workdir, or the local copy of one.
        config: Its config.

    Raises:
        UserError: A file of a workdir on the way is damaged.
    """
    return _bases_of(workdir, config, ())


def _bases_of(workdir: str, config: Config, runs: tuple[str, ...]) -> list[BaseModel]:
    origin = Origin.read(workdir)
    if origin:
        parents = [model.path for model in origin.models]
    else:
        parents = [config.model.init_from] if config.model.init_from else []
    return list(dict.fromkeys(base for path in parents for base in _bases_at(path, runs)))


def _bases_at(path: str, runs: tuple[str, ...]) -> list[BaseModel]:
    """Return the models that the model at a path goes back to, which may be that one."""
    local = Workdir(path).local if is_remote(path) else path
    config_file = os.path.join(local, CONFIG_FILE)
    fields = read_json_object(config_file) if os.path.exists(config_file) else {}
    if not config_files.is_of_run(fields) or len(runs) > _MOST_STAGES:
        return [BaseModel(label(path), name_in_cache(path), runs)]
    config = config_files.from_json(config_file)
    origin = Origin.read(local)
    if origin is None and not config.model.init_from and not _has_run(local):
        return [BaseModel(label(path), "", runs)]  # An import of an earlier version.
    is_import = origin is not None and origin.command == "import"
    return _bases_of(local, config, runs if is_import else (*runs, label(path)))


def _has_run(workdir: str) -> bool:
    return os.path.exists(os.path.join(workdir, RUN_FILE))
