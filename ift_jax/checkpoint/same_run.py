"""Whether a config may resume the run of a workdir: what may change, and what may not."""

import dataclasses
from typing import Any

from ift_jax.config.schema import Config
from ift_jax.errors import UserError
from ift_jax.io.paths import absolute

# Fields that say where and how something is done, but not what.
_FREE = {
    "data.store_dir",
    "data.processes",
    "data.max_dropped_fraction",
    "model.remat",
    "model.attention",
}
# Fields whose content is compared once it is known, and whose text may be another one then.
_BY_CONTENT = {
    "tokenizer.path",
    "format.template",
    "data.root",
    "data.systems",
    "data.modules",
}
_DATA_SECTIONS = ("data", "format")
_FIXED_SECTIONS = ("tokenizer", "model", "lora")
_FIXED_FIELDS = (
    "seed",
    "train.batch_size",
    "optimizer.freeze",
    "optimizer.name",
    "optimizer.keep_state",
    "preference.loss",
)
# What a run that is complete would have to be trained again for.
_TRAINING_SECTIONS = ("optimizer", "loss", "preference")
_TRAINING_FIELDS = ("train.steps", "train.epochs", "train.gradient_accumulation_steps")


def check_same_config(
    workdir: str, before: Config, now: Config, *, knows_content: bool, allow_new_data: bool = False
) -> None:
    """Refuse to resume a run with other data, another model, or another kind of optimizer.

    What may change: the length of the run, the optimizer's numbers, the loss of tokens, the beta of
    pairs, what is written when, the evaluation, and the mesh.

    Args:
        workdir: The workdir, for the message.
        before: The config of its run.
        now: The config that is to resume it.
        knows_content: Whether the workdir knows its inputs by content, so that they are compared
            later, and paths do not count.
        allow_new_data: Whether data and format may be other ones.

    Raises:
        UserError: Names the first field that differs.
    """
    old, new = _fields(before), _fields(now)
    for field, value in new.items():
        section = field.partition(".")[0]
        is_data = section in _DATA_SECTIONS
        is_compared = is_data or section in _FIXED_SECTIONS or field in _FIXED_FIELDS
        if field in _FREE or (knows_content and field in _BY_CONTENT):
            continue
        if not is_compared or (is_data and allow_new_data) or _same(field, old.get(field), value):
            continue
        cure = ", or --allow-new-data to go on with other data" if is_data else ""
        raise UserError(
            f"config.{field}: the run in {workdir} has {old.get(field)!r}, now it is {value!r}; "
            f"use another --workdir for another run{cure}"
        )


def _same(field: str, old: Any, new: Any) -> bool:
    if field == "model.init_from" and old and new:
        return True  # Read at step 0 only, and frozen weights are compared by their checksum.
    if field == "tokenizer.train_vocab_size" and 0 in (old, new):
        return True  # The tokenizer that the run trained may be named by its path.
    return old == new


def moved_start(before: Config, now: Config) -> str:
    """Return a line if `model.init_from` has changed, which a resumed run does not notice."""
    old, new = before.model.init_from, now.model.init_from
    if absolute(old) == absolute(new):
        return ""
    return f"config.model.init_from: the run began from {old}; {new} is not read"


def changed_training(before: Config, now: Config) -> dict[str, tuple[Any, Any]]:
    """Return the fields that would have trained another model, as (before, now)."""
    old, new = _fields(before), _fields(now)
    return {
        field: (old.get(field), value)
        for field, value in new.items()
        if field.partition(".")[0] in _TRAINING_SECTIONS or field in _TRAINING_FIELDS
        if old.get(field) != value
    }


def _fields(config: Config) -> dict[str, Any]:
    """Return the fields of a config by dotted name."""
    fields: dict[str, Any] = {}
    for name, value in dataclasses.asdict(config).items():
        if isinstance(value, dict):
            fields |= {f"{name}.{inner}": of_inner for inner, of_inner in value.items()}
        else:
            fields[name] = value
    return fields
