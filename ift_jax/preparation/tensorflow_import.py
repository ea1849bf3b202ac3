"""Importing TensorFlow without the lines that it writes while it is imported."""

import contextlib
import os
import sys
from collections.abc import Iterator

from ift_jax.io.first_import import first_import


@contextlib.contextmanager
def quiet_tensorflow_import() -> Iterator[None]:
    """Keep what TensorFlow writes during its import off the terminal.

    TensorFlow 2.21 writes six lines (about oneDNN and CUDA, twice) from static initializers of its
    C++ libraries, straight to file descriptor 2 and before it looks at any log level: setting
    TF_CPP_MIN_LOG_LEVEL to 3 leaves every one of them. Only the descriptor can be redirected, and
    only for the import: a failed import is an exception all the same.

    The variable is set nonetheless, for later: without it TensorFlow prints a traceback for every
    bad record.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    terminal = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        with first_import("tensorflow"):
            yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
