"""The files of reference log-probabilities: one beside each store for each reference model.

A file is a line of JSON that says what it holds, and the bytes of a float32[N, 2]: the chosen and
the rejected side of every example of the store, all variants, NaN where nothing was computed yet.
Its name has the store's name, which is a hash of all that determines it, and the fingerprint of the
model. Runs on parts of a store (`ift_jax.data.subset`) read and complete the file of the whole.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from ift_jax.data.store import TokenStore
from ift_jax.errors import UserError
from ift_jax.io.files import json_digest
from ift_jax.io.json_reader import parse_json
from ift_jax.io.side_folder import find_side_file, write_side_file

_FOLDER = "reference_log_probs"


def read_log_probs(store: TokenStore, fingerprint: str) -> np.ndarray:
    """Return what is known of a store's examples under a model.

    Args:
        store: The store.
        fingerprint: The model's.

    Returns:
        float32[N, 2] over all variants, NaN where nothing is known. A file that was cut off or
        damaged counts as none.

    Raises:
        UserError: The file of that name is of another model or store.
    """
    return _read_whole(store.whole, fingerprint)[store.places]


def _read_whole(store: TokenStore, fingerprint: str) -> np.ndarray:
    n_examples = sum(len(variant) for variant in store.variants)
    unknown = np.full((n_examples, 2), np.nan, np.float32)
    path = find_side_file(store.path.parent, _name(store, fingerprint))
    if path is None:
        return unknown
    head, _, body = path.read_bytes().partition(b"\n")
    try:
        found = parse_json(head, str(path))
    except UserError:
        return unknown
    expected = _header(store, fingerprint, body)
    if not isinstance(found, dict) or found.get("sha256") != expected["sha256"]:
        return unknown
    for name, what in (("model", "reference model"), ("store", "token store")):
        if found.get(name) != expected[name]:
            raise UserError(
                f"{path}: holds log-probabilities of another {what} ({found.get(name)}), expected"
                f" those of {expected[name]}: remove the file, and they are computed again"
            )
    return np.frombuffer(body, np.float32).reshape(n_examples, 2).copy()


def write_log_probs(store: TokenStore, fingerprint: str, log_probs_Nx2: np.ndarray) -> None:
    """Write what is known of a store's examples under a model; the reverse of `read_log_probs`.

    What a file knows of the examples that a part of a store leaves out stays.
    """
    places, store = store.places, store.whole
    whole_Mx2 = _read_whole(store, fingerprint)
    whole_Mx2[places] = log_probs_Nx2
    body = whole_Mx2.tobytes()
    head = json.dumps(_header(store, fingerprint, body)).encode()
    write_side_file(store.path.parent, _name(store, fingerprint), head + b"\n" + body)


def _name(store: TokenStore, fingerprint: str) -> str:
    return str(Path(_FOLDER, f"{store.path.name}-{fingerprint}"))


def _header(store: TokenStore, fingerprint: str, body: bytes) -> dict[str, Any]:
    return {
        "model": fingerprint,
        "store": json_digest(store.manifest["sha256"])[: len(fingerprint)],
        "sha256": hashlib.sha256(body).hexdigest(),
    }
