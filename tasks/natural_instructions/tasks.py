"""Super-NaturalInstructions (arXiv:2204.07705), trained and tested on as in Tk-Instruct.

`register(root)` reads the layout of github.com/allenai/natural-instructions: split lists in
`splits/default/`, task files in `tasks/` (or in any other folder of the root that holds
`task*.json`). It registers a SeqIO task for each file, and the mixtures

- `natural_instructions_train`: the tasks of `train_tasks.txt`, splits "train" and "validation"
  (instances that training never sees), mixed in proportion to their capped sizes;
- `natural_instructions_heldout`: the tasks of `test_tasks.txt`, split "test";
- `natural_instructions_xlingual_train` and `_heldout`, if `splits/xlingual/` exists: the
  cross-lingual track, with a ROUGE-L for scripts other than Latin.

The prompt is the definition with two positive examples. `tasks.natural_instructions.encodings`
registers the other prompts, `tasks.natural_instructions.v1` the first release.
"""

import dataclasses
import glob
import logging
import os
from collections.abc import Iterable

import seqio

from ift_jax.errors import UserError
from ift_jax.sources.register import register_mixture, register_task, task_name
from tasks.natural_instructions.files import read_list, summary, task_stem
from tasks.natural_instructions.metrics import METRICS, XLINGUAL_METRICS, Category, category
from tasks.natural_instructions.source import (
    NaturalInstructionsDataSource,
    NaturalInstructionsOptions,
)

PREFIX = "natural_instructions"
TRAIN_MIXTURE = f"{PREFIX}_train"
HELDOUT_MIXTURE = f"{PREFIX}_heldout"
_EXPECTED = "expected a copy of github.com/allenai/natural-instructions, with tasks/ and splits/"


@dataclasses.dataclass(frozen=True)
class Found:
    """The tasks that were registered, and the listed ones that are not on disk."""

    train: tuple[str, ...]
    heldout: tuple[str, ...]
    missing: tuple[str, ...]


def register(root: str, options: NaturalInstructionsOptions | None = None) -> Found:
    """Register the tasks and mixtures of a Natural Instructions folder.

    Returns:
        The tasks of the default (English) track.

    Raises:
        UserError: The folder or a split list does not exist, a task is in both lists or in two
            folders, or no task of the train list or of the test list is on disk.
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
    """Register one track of the release.

    Args:
        root: The release's folder.
        prefix: The beginning of the names `<prefix>_<task>`, `<prefix>_train` and
            `<prefix>_heldout`.
        track: The folder of `splits/` with the lists: "default" or "xlingual".
        options: Encoding, caps and seed.

    Raises:
        UserError: See `register`.
    """
    paths = _task_files(root)
    lists = {name: _listed_tasks(root, track, name) for name in ("train_tasks", "test_tasks")}
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
        held_out = list_name == "test_tasks"
        for task in tasks:
            if task not in paths:
                missing.append(task)
                continue
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
        logging.warning(
            "Natural Instructions: %d of %d listed tasks are not in %s (the first: %s)",
            len(missing),
            sum(map(len, lists.values())),
            root,
            missing[0],
        )
    register_mixture(f"{prefix}_train", registered["train_tasks"])
    register_mixture(f"{prefix}_heldout", [(name, 1.0) for name in registered["test_tasks"]])
    return Found(tuple(registered["train_tasks"]), tuple(registered["test_tasks"]), tuple(missing))


def categories(names: Iterable[str] | None = None) -> dict[str, Category]:
    """Return the categories of registered tasks, for `metrics.by_category`; reads their files.

    Args:
        names: Names of SeqIO tasks, by default all registered ones. Those that are no Natural
            Instructions tasks are left out.
    """
    sources = registered()
    wanted = sources if names is None else [name for name in names if name in sources]
    return {name: category(summary(sources[name].path).category) for name in wanted}


def registered() -> dict[str, NaturalInstructionsDataSource]:
    """Return the sources of the registered Natural Instructions tasks, by name."""
    sources = {name: seqio.TaskRegistry.get(name).source for name in seqio.TaskRegistry.names()}
    return {
        name: source
        for name, source in sources.items()
        if isinstance(source, NaturalInstructionsDataSource)
    }


def _task_files(root: str) -> dict[str, str]:
    """Return the path of each task, over all folders of the root."""
    if not root:
        raise UserError(f"data.root is empty; {_EXPECTED}")
    if not os.path.isdir(root):
        raise UserError(f"{root}: not a folder; {_EXPECTED}")
    paths: dict[str, str] = {}
    for path in sorted(glob.glob(os.path.join(glob.escape(root), "*", "task*.json"))):
        name = task_stem(path)
        if name in paths:
            raise UserError(f"task {name} is there twice: {paths[name]} and {path}")
        paths[name] = path
    if not paths:
        raise UserError(f"{root}: no folder with task*.json files; {_EXPECTED}")
    return paths


def _listed_tasks(root: str, track: str, name: str) -> list[str]:
    path = os.path.join(root, "splits", track, f"{name}.txt")
    if not os.path.isfile(path):
        raise UserError(f"{path}: does not exist; expected the official list of tasks")
    return read_list(path)
