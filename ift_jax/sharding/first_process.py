"""What the first process of a run knows, on all of its processes."""

import json
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from ift_jax.io.json_reader import parse_json

T = TypeVar("T")


def of_first_process(value: T) -> T:
    """Return the value that process 0 has; every process must call this.

    Args:
        value: Anything that JSON holds; NaN and infinity are kept. What other processes give is
            not looked at.
    """
    if jax.process_count() == 1:
        return value
    is_first = jax.process_index() == 0
    content = json.dumps(value).encode() if is_first else b""
    n_bytes = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
    padded = np.frombuffer(content or bytes(n_bytes), np.uint8)
    shared = np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes()
    received: T = parse_json(shared, "the first process")
    return received
