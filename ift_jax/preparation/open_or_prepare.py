"""The fast path: a mixture that was prepared before is opened without TensorFlow or SeqIO.

Preparing leaves a note of what was asked (a hash of the config's fields that matter), of every
file that was read, and of what came out. While all those files are what they were, the note
answers the same question again.
"""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ift_jax.config.mixtures import mixture_and_split
from ift_jax.config.schema import Config
from ift_jax.data.mixture import Mixture
from ift_jax.data.store_copies import fetched
from ift_jax.errors import UserError
from ift_jax.io.files import Log, json_bytes, json_digest, read_json, write
from ift_jax.io.paths import is_remote, place
from ift_jax.preparation import fingerprints
from ift_jax.preparation.drop_limits import open_checked
from ift_jax.text.tokenizers.load import Tokenizer, load_run_tokenizer

_VERSION = 2
# Fields of DataConfig that change neither a store nor which stores are opened.
_NOT_ASKED = {"store_dir", "max_dropped_fraction", "pack", "window", "processes"}


def open_or_prepare(
    config: Config, which: str = "train", *, log: Log = print, beam: Sequence[str] = ()
) -> tuple[Tokenizer, Mixture]:
    """Opens the stores of a mixture, preparing them first where something changed: as `prepare`."""
    mixture_and_split(config, which)
    # One in a bucket is known by what is in it: it is read for the note's name already.
    given = config.tokenizer.path
    tokenizer = load_run_tokenizer(config, given) if is_remote(given) else None
    path = _note_path(config, which, tokenizer)
    note = read_json(path) or {}
    if (
        note.get("version") == _VERSION
        and note["surroundings"] == _surroundings(config, note["data_files"])
        and all(map(fingerprints.file_unchanged, note["files"]))
    ):
        tasks, rates, folders, metric_fns = map(list, zip(*note["tasks"], strict=True))
        with contextlib.suppress(UserError):  # `prepare` mends it, or says it again.
            paths = [fetched(place(config.data.store_dir) / folder) for folder in folders]
            stores = open_checked(paths, tasks, config.data.max_dropped_fraction)
            view = Mixture(tasks, np.array(rates, np.float64), stores, metric_fns)
            return tokenizer or load_run_tokenizer(config, note["tokenizer"]), view
    # Whoever has the stores never comes here: it imports what TensorFlow needs seconds for.
    from ift_jax.preparation.prepare import prepare

    prepared = prepare(config, which, log=log, beam=beam)
    view = prepared.view
    folders = [store.path.name for store in view.stores]
    note = {
        "version": _VERSION,
        "surroundings": _surroundings(config, prepared.data_files),
        "data_files": prepared.data_files,
        "files": [fingerprints.file_record(file) for file in prepared.files],
        "tokenizer": prepared.tokenizer_path,
        "tasks": list(zip(view.tasks, view.rates.tolist(), folders, view.metric_fns, strict=True)),
    }
    write(path, json_bytes(note))
    return prepared.tokenizer, view


def _note_path(config: Config, which: str, tokenizer: Tokenizer | None) -> Path:
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
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
    return place(config.data.store_dir) / "requests" / name


def _surroundings(config: Config, data_files: list[str]) -> list[str]:
    """What else may change the answer: our code, and files that come or go."""
    return [
        fingerprints.our_code(),
        fingerprints.tree_digest(config.data.root, config.data.store_dir),
        fingerprints.siblings_digest(data_files),
    ]
