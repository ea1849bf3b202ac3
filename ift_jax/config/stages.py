"""Stages of a run: configs that follow one another, each from the last one's checkpoint.

A config file lists them as `stages`. Each has a name and the fields in which it differs from the
rest of the file:

    config.stages = [
        {"name": "mid", "data": {"mixture": "reasoning"}, "train": {"steps": 1000}},
        {"name": "sft", "data": {"mixture": "chats"}, "optimizer": {"keep_state": True}},
    ]

A stage is an ordinary run in its own folder of the workdir. Only the list is read here; the runs
are those of `ift_jax.training.stages`.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ift_jax.config.schema import Config
from ift_jax.errors import UserError, offered

KEY = "stages"
_NAME = re.compile(r"[A-Za-z0-9][\w-]*")
_OVERRIDE = re.compile(r"--config\.stages\.([\w-]+)\.([\w.]+=.*)", re.DOTALL)
# Stands for the checkpoint that a stage begins from while the stage before it has not run.
UNKNOWN_START = "the stage before"


class Stage(NamedTuple):
    """A stage of a run.

    Attributes:
        name: What it is called, and the name of its folder.
        config: The config of its run. From the second stage on, `model.init_from` is the folder of
            the stage before, or `UNKNOWN_START`.
    """

    name: str
    config: Config

    def starting_from(self, path: str) -> "Stage":
        """Return the stage with another checkpoint to begin from."""
        model = dataclasses.replace(self.config.model, init_from=path)
        return self._replace(config=dataclasses.replace(self.config, model=model))


class StageText(NamedTuple):
    """A stage as a config file describes it: its name and its nested fields."""

    name: str
    values: dict[str, Any]


def split_stages(values: dict[str, Any]) -> tuple[dict[str, Any], list[StageText]]:
    """Split the nested values of a config file into those of all stages, and its list of stages.

    Raises:
        UserError: The list, or the name of a stage, is not what is expected.
    """
    common = dict(values)
    listed = common.pop(KEY, ())
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise UserError(
            f"config.{KEY}: expected a list of stages, each with a name and the fields in which it "
            f"differs; got {listed!r:.80}"
        )
    stages: list[StageText] = []
    for position, item in enumerate(listed, start=1):
        where = f"config.{KEY}: stage {position}"
        fields = dict(item.items()) if hasattr(item, "items") else None
        if fields is None:
            raise UserError(f"{where}: expected a name and sections; got {item!r:.80}")
        name = fields.pop("name", None)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise UserError(
                f"{where}: expected a name of letters, digits, - and _, such as 'name': 'sft'; "
                f"got {name!r:.80}"
            )
        if name in [stage.name for stage in stages]:
            raise UserError(f"{where}: the name {name!r} is that of an earlier stage")
        stages.append(StageText(name, _plain(fields)))
    for stage in stages[1:]:
        model = stage.values.get("model")
        if isinstance(model, dict) and model.get("init_from"):
            raise UserError(
                f"config.{KEY}.{stage.name}.model.init_from: a stage begins from the checkpoint of "
                "the one before it; only the first may name a model"
            )
    return common, stages


def split_overrides(
    overrides: Sequence[str], names: Sequence[str]
) -> tuple[list[str], dict[str, list[str]]]:
    """Split overrides into those of all stages, and those of each by its name.

    Raises:
        UserError: An override names a stage that does not exist.
    """
    common: list[str] = []
    own: dict[str, list[str]] = {name: [] for name in names}
    for item in overrides:
        match = _OVERRIDE.fullmatch(item)
        if not match:
            common.append(item)
        elif match[1] not in own:
            hint = offered(match[1], names)
            raise UserError(f"--config.{KEY}.{match[1]}: no such stage{hint}")
        else:
            own[match[1]].append(f"--config.{match[2]}")
    return common, own


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested values with some of them replaced, section by section."""
    result = dict(base)
    for name, value in changes.items():
        below = result.get(name)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            value = merged(below, value)
        result[name] = value
    return result


def of_stage(name: str, error: UserError) -> UserError:
    """Return an error about a config as one about a stage's config."""
    text = re.sub(r"^(--)?config\.(?!stages\.)", rf"\g<1>config.{KEY}.{name}.", str(error))
    return UserError(text)


def check_kept_state(before: Config, now: Config, where: str = "model.init_from") -> None:
    """Check that `optimizer.keep_state` can be obeyed.

    Args:
        before: The config of the run whose optimizer goes on.
        now: The config of the run that begins from it.
        where: What the run before is called in messages.

    Raises:
        UserError: The two do not have the same optimizer state.
    """
    if not now.optimizer.keep_state:
        return
    field = "config.optimizer.keep_state"
    if before.lora.rank or now.lora.rank:
        raise UserError(
            f"{field}: adapters begin anew, and their moments with them; set it to False"
        )
    for name in ("name", "freeze"):
        old, new = getattr(before.optimizer, name), getattr(now.optimizer, name)
        if old != new:
            raise UserError(
                f"{field}: optimizer.{name} of {where} is {old!r}, here it is {new!r}; expected "
                "the same, or keep_state=False"
            )


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested mappings of any kind as dicts."""
    return {
        name: _plain(value) if hasattr(value, "items") else value for name, value in values.items()
    }
