"""Runs of several processes, one per host: how a command joins the others, and how it leaves."""

import argparse
import contextlib
import glob
import importlib.util
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

from ift_jax.commands.arguments import whole_number
from ift_jax.commands.failures import OUR_ERROR, USER_ERROR, report
from ift_jax.errors import UserError

HEARTBEAT_SECONDS = 30  # A process that is silent for this long counts as dead and ends the others.
# The variable for each flag, for launchers that start every process with the same command line.
VARIABLES = {
    "coordinator_address": "JAX_COORDINATOR_ADDRESS",
    "num_processes": "JAX_NUM_PROCESSES",
    "process_id": "JAX_PROCESS_ID",
}
_OTHERS_GONE = 3  # Another process died, or did not come: the same command may be run again.
# Seconds that process 0 stays after another one died. JAX aborts a process, with a stack trace,
# that loses its connection to process 0 before it has noticed the death itself and said so.
_OTHERS_LEAVE = 10


def add_processes(parser: argparse.ArgumentParser) -> None:
    """Adds `--coordinator`, `--num-processes`, `--process-id` and `--join-timeout`."""
    group = parser.add_argument_group(
        "several processes",
        "Cloud TPU, GKE, Slurm, and Open MPI are detected. Elsewhere every process needs the first "
        f"three flags, or the variables {', '.join(VARIABLES.values())}.",
    )
    group.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        dest="coordinator_address",
        help="the address of process 0",
    )
    group.add_argument(
        "--num-processes", type=whole_number(1), metavar="N", help="the number of processes"
    )
    group.add_argument(
        "--process-id",
        type=whole_number(0),
        metavar="I",
        help="the number of this process, from 0",
    )
    group.add_argument(
        "--join-timeout",
        type=whole_number(1),
        default=600,
        metavar="SECONDS",
        help="how long to wait for the others; default: 600",
    )


def cluster() -> str | None:
    """The kind of cluster that started this process as one of several; None if it is alone.

    Launchers are recognized by the variables that they set.
    """
    variables = os.environ
    if variables.get("SLURM_STEP_NUM_TASKS", "1") != "1":
        return "Slurm"
    if variables.get("OMPI_COMM_WORLD_SIZE", "1") != "1":
        return "Open MPI"
    if "," in variables.get("TPU_WORKER_HOSTNAMES", ""):
        return "TPUs on Kubernetes"
    if "MEGASCALE_COORDINATOR_ADDRESS" in variables:
        return "TPUs on Kubernetes"
    if "KUBERNETES_SERVICE_HOST" in variables and "JOB_COMPLETION_INDEX" in variables:
        return "Kubernetes"
    chips = glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*")
    if chips and importlib.util.find_spec("libtpu"):
        return "Cloud TPU"
    return None


def _initialize_arguments(args: argparse.Namespace) -> dict[str, Any] | None:
    """The arguments of `jax.distributed.initialize`; None if this process is alone."""
    given = {name: getattr(args, name) for name in VARIABLES}
    for name, variable in VARIABLES.items():
        value = os.environ.get(variable)
        if given[name] is not None or not value:
            continue
        if name == "coordinator_address":
            given[name] = value
        elif value.isdigit():
            given[name] = int(value)
        else:
            raise UserError(f"{variable}: expected a number; got {value!r}")
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return {} if cluster() else None
    if missing:
        raise UserError("--coordinator, --num-processes and --process-id go together")
    if not 0 <= given["process_id"] < given["num_processes"]:
        raise UserError(
            f"--process-id: expected 0 to {given['num_processes'] - 1}; got {given['process_id']}"
        )
    return given


@contextlib.contextmanager
def joined(args: argparse.Namespace) -> Iterator[None]:
    """Joins the other processes, if there are any; a failure in one ends all of them.

    A process that fails exits at once, without the barrier at the end of a healthy run. The others
    notice the broken connection or the missing heartbeat. No device may be in use before.

    Raises:
        UserError: the flags are wrong, or not all processes came in time.
    """
    initialize_arguments = _initialize_arguments(args)
    if initialize_arguments is None:
        yield
        return
    import jax

    _join(initialize_arguments, args.join_timeout)
    try:
        yield
    except Exception as error:
        process = f"process {jax.process_index()} of {jax.process_count()}"
        is_jax_error = isinstance(error, jax.errors.JaxRuntimeError)
        if is_jax_error and "RESOURCE_EXHAUSTED" not in str(error):
            why = " ".join(str(error).split())[:200]
            _leave(
                f"error: {process}: another process is gone, or cannot be reached ({why}); the "
                "same command resumes from the newest checkpoint, if there is one",
                _OTHERS_GONE,
                after=_OTHERS_LEAVE if jax.process_index() == 0 else 0,
            )
        status = report(error, debug=args.debug)
        ours = f"error: {process} failed; the others end with it"
        _leave("" if status == USER_ERROR else ours, status)
    except BaseException:
        traceback.print_exc()
        _leave(f"error: process {jax.process_index()} failed; the others end with it", OUR_ERROR)
    jax.distributed.shutdown()


def _join(initialize_arguments: dict[str, Any], timeout: int) -> None:
    """Waits for the other processes; exits if they do not come within `timeout` seconds."""
    import jax

    where = initialize_arguments.get("coordinator_address") or f"as {cluster()} tells"
    # At its own timeout JAX aborts with a stack trace, so this one is earlier.
    late = f"error: not all processes met ({where}) within {timeout} s"
    timer = threading.Timer(timeout, _leave, (late, _OTHERS_GONE))
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            **initialize_arguments,
            initialization_timeout=timeout + 60,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (RuntimeError, ValueError, OSError) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"could not join the other processes ({where}): {why}") from error
    finally:
        timer.cancel()


def _leave(line: str, code: int, after: float = 0) -> None:
    """Prints a line and exits `after` seconds, without waiting for other processes or threads."""
    if line:
        print(line, file=sys.stderr)
    sys.stderr.flush()
    sys.stdout.flush()
    time.sleep(after)
    os._exit(code)
