"""The fast path: a mixture that was prepared before is opened without TensorFlow or SeqIO.

Preparing leaves a note of what was asked (a hash of the config's fields that matter), of every
file that was read, and of what came out. As long as those files are what they were, the note
answers the same question again.
"""

import contextlib
import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ift_jax.config.mixtures import mixture_and_split
from ift_jax.config.schema import Config
from ift_jax.config.systems import append_working_folder
from ift_jax.data.mixture import Mixture
from ift_jax.data.store_copies import local_copy
from ift_jax.errors import UserError
from ift_jax.io.files import Log, json_bytes, json_digest, read_json, write
from ift_jax.io.paths import as_path, is_remote
from ift_jax.preparation import fingerprints
from ift_jax.preparation.drop_limits import open_checked
from ift_jax.text.tokenizers.base import Tokenizer
from ift_jax.text.tokenizers.load import load_tokenizer

if TYPE_CHECKING:
    from ift_jax.preparation.prepare import Prepared

_NOTE_VERSION = 4
# Fields of DataConfig that change neither a store nor which stores are opened.
_NOT_ASKED = {"store_dir", "max_dropped_fraction", "pack", "window", "processes"}


def open_or_prepare(
    config: Config, which: str = "train", *, log: Log = print, beam: Sequence[str] = ()
) -> tuple[Tokenizer, Mixture]:
    """Open the stores of a mixture, preparing them first where anything has changed.

    Arguments and errors are those of `ift_jax.preparation.prepare.prepare`.
    """
    opened = open_if_prepared(config, which)
    if opened is not None:
        return opened
    from ift_jax.preparation.prepare import prepare  # Imports TensorFlow, which takes seconds.

    prepared = prepare(config, which, log=log, beam=beam)
    note_path = _note_path(config, which, _remote_tokenizer(config))
    write(note_path, json_bytes(_note(config, prepared)))
    return prepared.tokenizer, prepared.mixture


def open_if_prepared(config: Config, which: str = "train") -> tuple[Tokenizer, Mixture] | None:
    """Open the stores of a mixture as `open_or_prepare` does, or return None if any is to be made.

    Raises:
        UserError: The config names no such mixture.
    """
    mixture_and_split(config, which)
    tokenizer = _remote_tokenizer(config)
    note = read_json(_note_path(config, which, tokenizer)) or {}
    if _still_holds(note, config):
        # `prepare` rebuilds a store that is missing, or raises the same error.
        with contextlib.suppress(UserError):
            mixture = _noted_mixture(note, config)
            if tokenizer is None:
                tokenizer = load_tokenizer(note["tokenizer"], config.tokenizer)
            return tokenizer, mixture
    return None


def _remote_tokenizer(config: Config) -> Tokenizer | None:
    """Load a tokenizer in a bucket, which is known by its content: notes are named by it."""
    path = config.tokenizer.path
    return load_tokenizer(path, config.tokenizer) if is_remote(path) else None


def _still_holds(note: Mapping[str, Any], config: Config) -> bool:
    """Return whether all that a note was made from is what it was."""
    if note.get("version") != _NOTE_VERSION:
        return False
    if note["surroundings"] != _surroundings(config, note["data_files"]):
        return False
    return all(fingerprints.file_unchanged(record) for record in note["files"])


def _noted_mixture(note: Mapping[str, Any], config: Config) -> Mixture:
    """Open the stores of a note.

    Raises:
        UserError: A store is missing, or lost too many examples for the config.
    """
    tasks = note["tasks"]
    names = [task["name"] for task in tasks]
    store_dir = as_path(config.data.store_dir)
    folders = [local_copy(store_dir / task["store"]) for task in tasks]
    stores = open_checked(folders, names, config.data.max_dropped_fraction)
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
        "tasks": [
            {"name": name, "rate": float(rate), "store": store.path.name, "metric_fns": metric_fns}
            for name, rate, store, metric_fns in tasks
        ],
    }


def _note_path(config: Config, which: str, tokenizer: Tokenizer | None) -> Path:
    """Return the path of the note, named by what is asked."""
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
    name = f"{which}-{json_digest(asked)[:16]}.json"
    return as_path(config.data.store_dir) / "requests" / name


def _surroundings(config: Config, data_files: list[str]) -> list[str]:
    """Return hashes of what else may change the answer: our code, and files that come or go."""
    return [
        fingerprints.our_code(),
        fingerprints.tree_digest(config.data.root, config.data.store_dir),
        fingerprints.siblings_digest(data_files),
    ]
