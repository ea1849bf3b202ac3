"""What a process that was started by another one of ours does if that one ends."""

import multiprocessing
import os
import threading
from multiprocessing.connection import wait


def die_with_parent() -> None:
    """End this process as soon as its parent is gone, even if that was killed.

    A worker must not write without the locks of its parent, nor stay behind with work that nobody
    waits for.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
