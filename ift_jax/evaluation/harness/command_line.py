"""The command line of lm-evaluation-harness, in this process."""

import itertools
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import lm_eval
from lm_eval.__main__ import cli_evaluate

from ift_jax.errors import UserError
from ift_jax.evaluation.harness.register import register


def run_command_line(words: Sequence[str]) -> int:
    """Run it with the model `ift_jax` registered; returns its exit status.

    Args:
        words: Its arguments, which it takes from `sys.argv` alone.

    Raises:
        UserError: It complains of its arguments or of a task.
    """
    register()
    before = sys.argv
    sys.argv = ["ift lm-eval", *words]
    try:
        cli_evaluate()
    except SystemExit as end:  # argparse ends so after --help, and after a complaint.
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    except (ValueError, TypeError, KeyError, OSError, NotImplementedError) as error:
        if not _raised_in_harness(error):
            raise
        raise UserError(f"lm-evaluation-harness: {_described(error)}") from error
    finally:
        sys.argv = before
    return 0


def _described(error: Exception) -> str:
    """Return what it complains of; where, if it does not say: a method that a task lacks, say."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"raised by {place.name}, {place.filename}:{place.lineno}"
    return f"{type(error).__name__}: {str(error) or where}"


def _raised_in_harness(error: Exception) -> bool:
    """Whether no code of this package was running that lm-evaluation-harness had called."""
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    harness = os.path.dirname(lm_eval.__file__)
    called = itertools.dropwhile(lambda file: not file.startswith(harness), files)
    package = str(Path(__file__).parents[2])
    return not any(file.startswith(package) for file in called)
