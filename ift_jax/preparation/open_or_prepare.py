"""The fast path: a mixture that was prepared before is opened without TensorFlow or SeqIO.

Preparing leaves a note of what was asked (a hash of the config's fields that matter), of every
file that was read, and of what came out. As long as those files are what they were, the note
answers the same question again.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ift_jax.config.mixtures import mixture_and_split
from ift_jax.config.schema import Config
from ift_jax.config.systems import append_working_folder
from ift_jax.data.mixture import Mixture
from ift_jax.data.store import DamagedStore
from ift_jax.data.subset import chosen_tasks, with_examples, with_tasks
from ift_jax.errors import UserError
from ift_jax.io.files import Log, json_bytes, json_digest, read_json
from ift_jax.io.paths import as_path, is_remote
from ift_jax.io.side_folder import find_side_file, write_side_file
from ift_jax.preparation import fingerprints
from ift_jax.preparation.drop_limits import open_usable
from ift_jax.text.tokenizers.base import Tokenizer
from ift_jax.text.tokenizers.load import load_tokenizer

if TYPE_CHECKING:
    from ift_jax.preparation.prepare import Prepared

_NOTE_VERSION = 6
# Fields of DataConfig that change neither a store nor which stores are opened.
_NOT_ASKED = {
    "store_dir",
    "max_dropped_fraction",
    "max_tasks",
    "max_examples_per_task",
    "pack",
    "window",
    "processes",
}


def open_or_prepare(
    config: Config,
    which: str = "train",
    *,
    log: Log = print,
    beam: Sequence[str] = (),
    run_tokenizer: str = "",
) -> tuple[Tokenizer, Mixture]:
    """Open the stores of a mixture, preparing them first where anything has changed.

    Of the trained tasks, only what `data.max_tasks` and `data.max_examples_per_task` leave is
    opened; the stores are those of all. The errors are those of
    `ift_jax.preparation.prepare.prepare`.

    Args:
        config: The run's config.
        which: "train", "eval" or "heldout".
        log: Called with each progress line.
        beam: Flags of Beam.
        run_tokenizer: The tokenizer that the run trained when it began; "" if it did not. It is
            used even if another one would be trained now, because the text has changed.
    """

    def open_whole(which: str) -> tuple[Tokenizer, Mixture]:
        return _open_or_prepare_whole(config, which, log, beam, run_tokenizer)

    tokenizer, mixture = open_whole(which)
    if not _is_part(config, which):
        return tokenizer, mixture
    trained = mixture if which == "train" else open_whole("train")[1]
    return tokenizer, _part(config, which, mixture, trained.tasks)


def _is_part(config: Config, which: str) -> bool:
    """Return whether some tasks or examples of a mixture are left out."""
    data = config.data
    of_examples = bool(data.max_examples_per_task) and which == "train"
    return of_examples or (bool(data.max_tasks) and which != "heldout")


def _part(config: Config, which: str, mixture: Mixture, trained: Sequence[str]) -> Mixture:
    """Return what `data.max_tasks` and `data.max_examples_per_task` leave of a mixture.

    Args:
        config: The run's config.
        which: "train" or "eval". What is not trained on is not among the trained tasks either.
        mixture: The whole mixture.
        trained: All tasks of the whole training mixture.

    Raises:
        UserError: Nothing is left.
    """
    data, seed = config.data, config.seed
    left_out = set(trained) - chosen_tasks(trained, data.max_tasks, seed)
    mixture = with_tasks(mixture, frozenset(mixture.tasks) - left_out)
    if not mixture.tasks:
        raise UserError(
            f"config.data.max_tasks: none of the {data.max_tasks} trained tasks has the split "
            f"{mixture_and_split(config, which).split!r}; expected a larger number"
        )
    if data.max_examples_per_task and which == "train":
        return with_examples(mixture, data.max_examples_per_task, seed)
    return mixture


def _open_or_prepare_whole(
    config: Config, which: str, log: Log, beam: Sequence[str], run_tokenizer: str
) -> tuple[Tokenizer, Mixture]:
    """As `open_or_prepare`, with all tasks and examples."""
    opened, damage = _opened_or_damage(config, which, log)
    if run_tokenizer:
        own = load_tokenizer(run_tokenizer, config.tokenizer)
        if opened is None or opened[0].fingerprint != own.fingerprint:
            given = dataclasses.replace(config.tokenizer, path=run_tokenizer)
            config = dataclasses.replace(config, tokenizer=given)
            opened, damage = _opened_or_damage(config, which, log)
    if opened is not None:
        return opened
    from ift_jax.preparation.prepare import prepare  # Imports TensorFlow, which takes seconds.

    try:
        prepared = prepare(config, which, log=log, beam=beam)
    except UserError as error:
        if damage:
            raise UserError(f"{error} (prepared again because of this: {damage})") from error
        raise
    note = _note(config, prepared)
    name = _note_name(config, which, _remote_tokenizer(config))
    content = json_bytes(note | {"sum": json_digest(note)})
    write_side_file(as_path(config.data.store_dir), name, content, log)
    _log_left_out(prepared.left_out, log)
    return prepared.tokenizer, prepared.mixture


def _opened_or_damage(
    config: Config, which: str, log: Log
) -> tuple[tuple[Tokenizer, Mixture] | None, str]:
    """As `_open_noted`, with what is wrong with a store, or ""."""
    try:
        return _open_noted(config, which, log), ""
    except DamagedStore as error:
        return None, str(error)


def open_if_prepared(config: Config, which: str = "train") -> tuple[Tokenizer, Mixture] | None:
    """Open the stores of a mixture as `open_or_prepare` does, or return None if any is to be made.

    Raises:
        UserError: The config names no such mixture.
    """
    try:
        opened = _open_noted(config, which)
        if opened is None or not _is_part(config, which):
            return opened
        trained = opened if which == "train" else _open_noted(config, "train")
    except DamagedStore:
        return None
    if trained is None:
        return None
    return opened[0], _part(config, which, opened[1], trained[1].tasks)


def _open_noted(
    config: Config, which: str, log: Log | None = None
) -> tuple[Tokenizer, Mixture] | None:
    """Open the stores that a note names; return None if there is no note, or it holds no more.

    Raises:
        DamagedStore: A store is missing or damaged.
        UserError: The config names no such mixture.
    """
    mixture_and_split(config, which)
    tokenizer = _remote_tokenizer(config)
    name = _note_name(config, which, tokenizer)
    path = find_side_file(as_path(config.data.store_dir), name)
    note: Any = read_json(path) if path else None
    if not _still_holds(note, config):
        return None
    try:
        if tokenizer is None:
            tokenizer = load_tokenizer(note["tokenizer"], config.tokenizer)
        mixture = _noted_mixture(note, config, tokenizer, log)
    except DamagedStore:
        raise
    except UserError:
        return None  # `prepare` raises the same error.
    _log_left_out(note["left_out"], log)
    return tokenizer, mixture


def _log_left_out(lines: Sequence[str], log: Log | None) -> None:
    """Say each time which tasks of a mixture are not read: the mixture is another without them."""
    if log is not None:
        for line in lines:
            log(line)


def _remote_tokenizer(config: Config) -> Tokenizer | None:
    """Load a tokenizer in a bucket, which is known by its content: notes are named by it."""
    path = config.tokenizer.path
    return load_tokenizer(path, config.tokenizer) if is_remote(path) else None


def _still_holds(note: Any, config: Config) -> bool:
    """Return whether a note is whole, and all that it was made from is what it was."""
    if not isinstance(note, dict) or note.pop("sum", None) != json_digest(note):
        return False
    if note["version"] != _NOTE_VERSION:
        return False
    if note["surroundings"] != _surroundings(config, note["data_files"]):
        return False
    return all(fingerprints.file_unchanged(record) for record in note["files"])


def _noted_mixture(
    note: Mapping[str, Any], config: Config, tokenizer: Tokenizer, log: Log | None
) -> Mixture:
    """Open the stores of a note.

    Raises:
        UserError: A store is missing or damaged, or lost too many examples for the config.
    """
    tasks = note["tasks"]
    names = [task["name"] for task in tasks]
    store_dir = as_path(config.data.store_dir)
    folders = [store_dir / task["store"] for task in tasks]
    max_dropped = config.data.max_dropped_fraction
    stores = open_usable(folders, names, tokenizer.vocab_size, max_dropped, log)
    rates = np.array([task["rate"] for task in tasks], np.float64)
    return Mixture(names, rates, stores, [task["metric_fns"] for task in tasks])


def _note(config: Config, prepared: "Prepared") -> dict[str, Any]:
    mixture = prepared.mixture
    tasks = zip(mixture.tasks, mixture.rates, mixture.stores, mixture.metric_fns, strict=True)
    return {
        "version": _NOTE_VERSION,
        "surroundings": _surroundings(config, prepared.data_files),
        "data_files": prepared.data_files,
        "files": [fingerprints.file_record(file) for file in prepared.files],
        "tokenizer": prepared.tokenizer_path,
        "left_out": prepared.left_out,
        "tasks": [
            {"name": name, "rate": float(rate), "store": store.path.name, "metric_fns": metric_fns}
            for name, rate, store, metric_fns in tasks
        ],
    }


def _note_name(config: Config, which: str, tokenizer: Tokenizer | None) -> str:
    """Return the name of the note in the folder of stores, after what is asked."""
    append_working_folder()  # Module names must mean what they mean when they are imported.
    data = dataclasses.asdict(config.data)
    asked = {
        "data": {name: value for name, value in data.items() if name not in _NOT_ASKED},
        "format": dataclasses.asdict(config.format),
        "tokenizer": dataclasses.asdict(config.tokenizer),
        "architecture": config.model.architecture,
        "seed": config.seed,
        # Relative paths and module names must mean what they meant.
        "folder": os.getcwd(),
        "modules": [fingerprints.module_origin(name) for name in config.data.modules],
    }
    if tokenizer:
        asked["tokenizer"] = [config.tokenizer.path, tokenizer.fingerprint]
    return f"requests/{which}-{json_digest(asked)[:16]}.json"


def _surroundings(config: Config, data_files: list[str]) -> list[str]:
    """Return hashes of what else may change the answer: our code, and files that come or go."""
    return [
        fingerprints.our_code(),
        fingerprints.tree_digest(config.data.root, config.data.store_dir),
        fingerprints.siblings_digest(data_files),
    ]
