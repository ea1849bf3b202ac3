"""Files that all workers of a session share, each made by the first that needs it."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

SHARED = Path(os.environ["IFT_JAX_TESTS"])  # See conftest.py.


def made_once(name: str, make: Callable[[Path], object]) -> Path:
    """Return the shared file of this name; `make` writes it if no worker has done so."""
    path = SHARED / name
    with open(SHARED / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            make(path)
    return path
