"""The first import of a large package, which the garbage collector need not look through."""

import contextlib
import gc
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def first_import(package: str) -> Iterator[None]:
    """Collect no garbage in the block, which imports a package and what else the process keeps.

    Imports make some hundred thousand objects and next to no garbage. Looking for garbage among
    them takes an eighth of the 1.9 CPU seconds in which `ift train` imports all that it needs.
    What is there at the end of the block is left out of later collections as well.

    Nothing is done if the package was imported before: what has become garbage since then would
    never be freed.
    """
    if package in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
