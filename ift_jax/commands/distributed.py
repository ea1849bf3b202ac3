"""Several processes, one a host: how a command joins them, and how it leaves."""

import argparse
import contextlib
import glob
import importlib.util
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any

from ift_jax.errors import UserError

HEARTBEAT_SECONDS = 30  # A process that is silent for so long is dead, and ends the others.
# Each flag's variable, for launchers that cannot give every process its own command line.
VARIABLES = {
    "coordinator_address": "JAX_COORDINATOR_ADDRESS",
    "num_processes": "JAX_NUM_PROCESSES",
    "process_id": "JAX_PROCESS_ID",
}


def add_processes(parser: argparse.ArgumentParser) -> None:
    """`--coordinator`, `--num-processes`, `--process-id` and `--join-timeout`."""
    group = parser.add_argument_group(
        "several processes",
        "found by themselves on Cloud TPU, GKE, Slurm and Open MPI; else all "
        f"three flags, or the variables {', '.join(VARIABLES.values())}, on every process",
    )
    group.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        dest="coordinator_address",
        help="address of process 0",
    )
    group.add_argument("--num-processes", type=int, metavar="N")
    group.add_argument("--process-id", type=int, metavar="I")
    group.add_argument(
        "--join-timeout",
        type=int,
        default=600,
        metavar="SECONDS",
        help="how long to wait for the others (default: 600)",
    )


def cluster() -> str | None:
    """The cluster this process was started on as one of several, by what launchers set; or None."""
    e = os.environ
    if e.get("SLURM_STEP_NUM_TASKS", "1") != "1":
        return "Slurm"
    if e.get("OMPI_COMM_WORLD_SIZE", "1") != "1":
        return "Open MPI"
    if "," in e.get("TPU_WORKER_HOSTNAMES", "") or "MEGASCALE_COORDINATOR_ADDRESS" in e:
        return "TPUs on Kubernetes"
    if "KUBERNETES_SERVICE_HOST" in e and "JOB_COMPLETION_INDEX" in e:
        return "Kubernetes"
    chips = glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*")
    if chips and importlib.util.find_spec("libtpu"):
        return "Cloud TPU"
    return None


def _place(args: argparse.Namespace) -> dict[str, Any] | None:
    """What `jax.distributed.initialize` is told; None: this process is alone."""
    given = {name: getattr(args, name) for name in VARIABLES}
    for name, variable in VARIABLES.items():
        if given[name] is None and (value := os.environ.get(variable)):
            if name != "coordinator_address" and not value.isdigit():
                raise UserError(f"{variable}: expected a number; got {value!r}")
            given[name] = value if name == "coordinator_address" else int(value)
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
    """Joins the other processes, if there are any; whatever goes wrong in one ends all of them.

    One that fails leaves at once, without the meeting at the end of a healthy run; the others
    notice by the broken connection or the missing heartbeat. No device may be in use before.

    Raises:
        UserError: the flags are wrong, or not all processes came in time.
    """
    place = _place(args)
    if place is None:
        yield
        return
    import jax

    where = place.get("coordinator_address") or f"as {cluster()} tells"
    # JAX's own way to give up is to abort with a stack trace, so we are earlier.
    late = f"error: not all processes met ({where}) within {args.join_timeout} s"
    timer = threading.Timer(args.join_timeout, _leave, (late, 3))
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            **place,
            initialization_timeout=args.join_timeout + 60,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (RuntimeError, ValueError, OSError) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"could not join the other processes ({where}): {why}") from error
    finally:
        timer.cancel()
    try:
        yield
    except UserError as error:
        _leave(f"error: {error}", 2)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            raise
        why = " ".join(str(error).split())[:200]
        _leave(
            f"error: process {jax.process_index()} of {jax.process_count()}: another process "
            f"is gone, or cannot be reached ({why}); the same command goes on from the newest "
            "checkpoint",
            3,
        )
    except BaseException:
        traceback.print_exc()
        _leave(f"error: process {jax.process_index()} failed; the others end with it", 1)
    jax.distributed.shutdown()


def _leave(line: str, code: int) -> None:
    print(line, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(code)
