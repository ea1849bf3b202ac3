"""What the parts of `benchmarks.on_gpu` print: one JSON object a line, as soon as it is measured.

A part that runs out of time, or fails, has printed all that it measured before.
"""

import json
import traceback
from collections.abc import Callable
from typing import Any

Record = dict[str, Any]


def emit(record: Record) -> None:
    """Print a record."""
    print(json.dumps(record), flush=True)


def emit_measured(of: Record, measure: Callable[[], Record]) -> None:
    """Print what `measure` returns, or why it failed, so that what comes after it is measured.

    Args:
        of: What is measured: the fields that tell this record from others.
        measure: Returns the figures.
    """
    try:
        figures = measure()
    except Exception as error:  # Any library may fail; the record says which.
        last_lines = traceback.format_exc().splitlines()[-6:]
        figures = {"error": f"{type(error).__name__}: {error}"[:1000], "traceback": last_lines}
    emit({**of, **figures})
