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

from ift_jax.config import Config
from ift_jax.data.randomness import digest
from ift_jax.data.store import Log, json_bytes, read_json
from ift_jax.data.view import MixtureView
from ift_jax.errors import UserError
from ift_jax.storage import is_remote, place
from ift_jax.text.tokenizers import Tokenizer
from tasks.preparation import fingerprints, run_tokenizer
from tasks.preparation.refusals import open_checked
from tasks.preparation.storage import fetched, write

_VERSION = 2
# Fields of DataConfig that change neither a store nor which stores are opened.
_NOT_ASKED = {"store_dir", "max_refused_share", "pack", "window", "processes"}


def mixture_and_split(config: Config, which: str) -> tuple[str, str, str]:
    """The mixture and split of "train", "eval" or "heldout", and the config's field of it."""
    data = config.data
    name, split, field = {
        "train": (data.mixture, data.split, "data.mixture"),
        "eval": (data.eval_mixture or data.mixture, data.eval_split, "data.eval_mixture"),
        "heldout": (data.heldout_mixture, data.heldout_split, "data.heldout_mixture"),
    }[which]
    if not name:
        raise UserError(f"{field} is empty; expected the name of a SeqIO task or mixture")
    return name, split, field


def open_or_prepare(
    config: Config, which: str = "train", *, log: Log = print, beam: Sequence[str] = ()
) -> tuple[Tokenizer, MixtureView]:
    """Opens the stores of a mixture, preparing them first where something changed: as `prepare`."""
    mixture_and_split(config, which)
    # One in a bucket is known by what is in it: it is read for the note's name already.
    given = config.tokenizer.path
    tokenizer = run_tokenizer.load(config, given) if is_remote(given) else None
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
            stores = open_checked(paths, tasks, config.data.max_refused_share)
            view = MixtureView(tasks, np.array(rates, np.float64), stores, metric_fns)
            return tokenizer or run_tokenizer.load(config, note["tokenizer"]), view
    # Whoever has the stores never comes here: it imports what TensorFlow needs seconds for.
    from tasks.preparation.prepare import prepare

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
    name = f"{which}-{digest(asked)[:16]}.json"
    return place(config.data.store_dir) / "requests" / name


def _surroundings(config: Config, data_files: list[str]) -> list[str]:
    """What else may change the answer: our code, and files that come or go."""
    return [
        fingerprints.our_code(),
        fingerprints.tree_digest(config.data.root, config.data.store_dir),
        fingerprints.siblings_digest(data_files),
    ]
