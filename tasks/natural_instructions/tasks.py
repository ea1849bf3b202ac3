"""Super-NaturalInstructions (arXiv:2204.07705) as Tk-Instruct trains and tests on it.

`register(root)` reads the layout of github.com/allenai/natural-instructions: split lists in
`splits/default/`, task files in `tasks/` (or any other folders of the root that hold
`task*.json`). It registers a SeqIO task a file, and the mixtures

- `natural_instructions_train`: the tasks of `train_tasks.txt`, splits "train" and "validation"
  (instances that training never sees), mixed in proportion to their capped sizes;
- `natural_instructions_heldout`: the tasks of `test_tasks.txt`, split "test";
- `natural_instructions_xlingual_train` and `_heldout`, where `splits/xlingual/` is there: the
  cross-lingual track, with a ROUGE-L that knows other scripts than Latin.

The prompt is the definition with two demonstrations; `tasks.natural_instructions.encodings`
registers the others, `tasks.natural_instructions.v1` the first release's schema.
"""

import dataclasses
import glob
import logging
import os
from collections.abc import Iterable

import seqio

from ift_jax.errors import UserError
from ift_jax.sources.register import register_mixture, register_task, task_name
from tasks.natural_instructions.metrics import METRICS, XLINGUAL_METRICS, Category, category
from tasks.natural_instructions.source import (
    NaturalInstructionsDataSource,
    NaturalInstructionsOptions,
    load_task,
)

PREFIX = "natural_instructions"
TRAIN_MIXTURE = f"{PREFIX}_train"
HELDOUT_MIXTURE = f"{PREFIX}_heldout"
_EXPECTED = "expected a copy of github.com/allenai/natural-instructions, with tasks/ and splits/"


@dataclasses.dataclass(frozen=True)
class Found:
    """The tasks that were registered, and those of the lists that are not on disk."""

    train: tuple[str, ...]
    heldout: tuple[str, ...]
    missing: tuple[str, ...]


def register(root: str, options: NaturalInstructionsOptions | None = None) -> Found:
    """Registers the tasks and mixtures of a Natural Instructions folder.

    Returns:
      The tasks of the default (English) track.

    Raises:
      UserError: no such folder or split list, a task in both lists or in two folders, or no
        task of the train list or of the test list on disk.
    """
    found = register_track(root, options=options)
    if os.path.isdir(os.path.join(root, "splits", "xlingual")):
        register_track(root, f"{PREFIX}_xlingual", track="xlingual", options=options)
    return found


def register_track(
    root: str,
    prefix: str = PREFIX,
    *,
    track: str = "default",
    options: NaturalInstructionsOptions | None = None,
) -> Found:
    """Registers one track of the release under `prefix`.

    Args:
      root: the release's folder.
      prefix: of the names: `<prefix>_<task>`, `<prefix>_train` and `<prefix>_heldout`.
      track: the folder of `splits/` with the lists: "default" or "xlingual".
      options: encoding, caps and seed.

    Raises:
      UserError: as `register`.
    """
    paths = _task_files(root)
    lists = {name: _read_list(root, track, name) for name in ("train_tasks", "test_tasks")}
    both = sorted(set(lists["train_tasks"]) & set(lists["test_tasks"]))
    if both:
        raise UserError(
            f"{root}/splits/{track}: {both[0]} is in train_tasks.txt and in test_tasks.txt; "
            "a held-out task cannot be trained on"
        )
    metric_fns = XLINGUAL_METRICS if track == "xlingual" else METRICS
    registered: dict[str, list[str]] = {"train_tasks": [], "test_tasks": []}
    missing = []
    for list_name, tasks in lists.items():
        for task in tasks:
            if task not in paths:
                missing.append(task)
                continue
            held_out = list_name == "test_tasks"
            source = NaturalInstructionsDataSource(paths[task], held_out=held_out, options=options)
            name = f"{prefix}_{task_name(task)}"
            register_task(name, source, metric_fns=metric_fns)
            registered[list_name].append(name)
        if not registered[list_name]:
            raise UserError(
                f"{root}: none of the {len(tasks)} tasks of splits/{track}/{list_name}.txt is "
                f"there (the folder has {len(paths)} task files)"
            )
    if missing:
        total = sum(map(len, lists.values()))
        logging.warning(
            "Natural Instructions: %d of %d listed tasks are not in %s (the first: %s)",
            len(missing),
            total,
            root,
            missing[0],
        )
    register_mixture(f"{prefix}_train", registered["train_tasks"])
    register_mixture(f"{prefix}_heldout", [(name, 1.0) for name in registered["test_tasks"]])
    return Found(tuple(registered["train_tasks"]), tuple(registered["test_tasks"]), tuple(missing))


def categories(names: Iterable[str] | None = None) -> dict[str, Category]:
    """Returns the category and headline metric of registered Natural Instructions tasks.

    Reads the tasks' files. `natural_instructions_metrics.by_category` groups scores with it.

    Args:
      names: of SeqIO tasks; others than Natural Instructions' are left out. By default all.
    """
    sources = registered()
    wanted = sources if names is None else [name for name in names if name in sources]
    return {name: category(load_task(sources[name].path).category) for name in wanted}


def registered() -> dict[str, NaturalInstructionsDataSource]:
    """Returns the registered Natural Instructions tasks with their sources."""
    sources = {name: seqio.TaskRegistry.get(name).source for name in seqio.TaskRegistry.names()}
    return {k: s for k, s in sources.items() if isinstance(s, NaturalInstructionsDataSource)}


def _task_files(root: str) -> dict[str, str]:
    """Returns task name -> path, over all folders of the root."""
    if not root:
        raise UserError(f"data.root is empty; {_EXPECTED}")
    if not os.path.isdir(root):
        raise UserError(f"{root}: not a folder; {_EXPECTED}")
    paths: dict[str, str] = {}
    for path in sorted(glob.glob(os.path.join(glob.escape(root), "*", "task*.json"))):
        name = os.path.basename(path).removesuffix(".json")
        if name in paths:
            raise UserError(f"task {name} is there twice: {paths[name]} and {path}")
        paths[name] = path
    if not paths:
        raise UserError(f"{root}: no folder with task*.json files; {_EXPECTED}")
    return paths


def _read_list(root: str, track: str, name: str) -> list[str]:
    path = os.path.join(root, "splits", track, f"{name}.txt")
    if not os.path.isfile(path):
        raise UserError(f"{path}: does not exist; expected the official list of tasks")
    with open(path, encoding="utf-8") as file:
        return list(dict.fromkeys(line.strip() for line in file if line.strip()))
