"""`ift train` that waits at a step, so that another process can do something in time.

    python -m tests.training.held_run STEP FILE train ...

When a line of `metrics.jsonl` is written for this step or a later one, the run waits until the file
exists.
"""

import os
import sys
import time

from ift_jax.commands.main import main
from ift_jax.training.metric_writer import MetricWriter


def _hold(step: int, file: str) -> None:
    """Make the run wait."""
    write = MetricWriter.write

    def write_and_wait(writer, record):
        write(writer, record)
        while record["step"] >= step and not os.path.exists(file):
            time.sleep(0.01)

    MetricWriter.write = write_and_wait


if __name__ == "__main__":
    _hold(int(sys.argv[1]), sys.argv[2])
    sys.exit(main(sys.argv[3:]))
