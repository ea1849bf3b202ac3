#!/usr/bin/env python3
r"""Run a command on a Cloud TPU slice, or on several, until it is done.

    launch/tpu_vm.py run sft --project my-project-1 --zone us-east5-a --accelerator-type v5p-64 \
        --spot --delete -- ift train --config configs/tulu3.py:8b --workdir gs://my-bucket/tulu3

This creates the TPU, or uses the existing one with that name, copies this checkout to it and sets
it up. It then starts the command on every host, detached from the connection, and shows the log
of the first host. A preempted spot TPU is created again and the command started again, which
resumes from the newest checkpoint. After Ctrl-C, or on another machine, the same command line
finds the running job and shows its log. Nothing is deleted unless `--delete` or `delete` says so,
except a preempted TPU: it has to be deleted before its name can be used again.
"""

import argparse
from pathlib import Path

import arguments
import tpu_types
from arguments import at_least, matching
from command_runner import CommandRunner, LaunchError, run_launcher
from tpu_job import TpuJob
from tpu_slice import RUNTIMES, Interrupted, LostContact, TpuSlice

VERBS = {
    "run": "create or find the TPU, and run the command until it is done",
    "status": "show the state of the TPU, and of the job on every host",
    "stop": "end the job with SIGTERM, so that it saves; keep the TPU",
    "delete": "delete the TPU",
}


def accelerator_type(value: str) -> str:
    """The argparse type of --accelerator-type."""
    version = value.partition("-")[0].lower()
    if tpu_types.OTHER_NAMES.get(version, version) == "tpu7x":
        raise argparse.ArgumentTypeError(
            f"{value!r}: the Cloud TPU API ends at v6e; use launch/xpk.py for TPU7x, through GKE"
        )
    return tpu_types.accelerator_type(value, list(RUNTIMES))


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = arguments.new_parser(__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, description in VERBS.items():
        verb_parser = verbs.add_parser(
            verb, help=description, description=description, allow_abbrev=False
        )
        verb_parser.add_argument(
            "name", type=arguments.job_name, help="the name of the TPU and of the job"
        )
        arguments.add_cloud_flags(verb_parser)
        add_resource_flags(verb_parser)
        if verb == "run":
            add_creation_flags(verb_parser)
            add_run_flags(verb_parser)
        else:
            arguments.add_dry_run_flag(verb_parser)
    args = arguments.parse(parser)
    if args.verb == "run":
        check_disks(parser, args)
    return args


def check_disks(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse a disk that several hosts would write to; Google Cloud would, after the queue."""
    if args.slices == 1 and not tpu_types.has_several_hosts(args.accelerator_type):
        return
    for disk in args.data_disk:
        name, _, mode = disk.partition(":")
        if mode != "read-only":
            parser.error(
                f"--data-disk {disk}: several hosts can only read a disk: {name}:read-only"
            )


def add_resource_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say what the TPU is to Google Cloud and how to reach its hosts."""
    parser.add_argument(
        "--slices", type=at_least(1), default=1, help="number of slices (default: 1)"
    )
    parser.add_argument(
        "--queued",
        action="store_true",
        help="use a queued resource, which waits for capacity (always so with several slices)",
    )
    connection = parser.add_mutually_exclusive_group()
    connection.add_argument(
        "--internal-ip",
        action="store_true",
        help="ssh inside the network, without external IPs",
    )
    connection.add_argument(
        "--tunnel-through-iap", action="store_true", help="ssh through Identity-Aware Proxy"
    )


def add_creation_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say what to create."""
    parser.add_argument(
        "--accelerator-type",
        required=True,
        type=accelerator_type,
        help="such as v5litepod-16 or v5p-64",
    )
    parser.add_argument(
        "--runtime-version",
        type=matching(r"[a-z0-9][a-z0-9.-]*", "a runtime version"),
        help="default: the documented one for the accelerator",
    )
    capacity = parser.add_mutually_exclusive_group()
    capacity.add_argument("--spot", action="store_true", help="cheaper, but may be preempted")
    capacity.add_argument("--reserved", action="store_true", help="use the project's reservation")
    capacity.add_argument(
        "--reservation",
        type=arguments.reservation_name,
        metavar="NAME",
        help="use this reservation (with gcloud's alpha commands)",
    )
    arguments.add_repeatable_flag(
        parser,
        "--data-disk",
        matching(r"[a-z][a-z0-9./_-]*(:read-only|:read-write)?", "a disk: NAME[:read-only]"),
        "NAME[:read-only]",
        "attach this disk, for the boot disk always has 100 GiB; several hosts can only read it",
    )
    parser.add_argument(
        "--service-account",
        type=matching(r"[a-z0-9-]+@[a-z0-9.-]+\.gserviceaccount\.com", "a service account"),
        help="the identity of the hosts, which needs access to the bucket",
    )
    scope = matching(r"[A-Za-z0-9][A-Za-z0-9._:/-]*", "a scope, such as cloud-platform")
    text = "what the identity of the hosts may be used for"
    arguments.add_repeatable_flag(parser, "--scope", scope, "SCOPE", text)
    network = matching(r"[A-Za-z0-9][A-Za-z0-9._/-]*", "a network's name or path")
    parser.add_argument("--network", type=network)
    parser.add_argument("--subnetwork", type=network)
    parser.add_argument(
        "--no-external-ips", action="store_true", help="give the hosts no external addresses"
    )
    arguments.add_label_flags(parser, "the TPU")
    arguments.add_further_flags(parser, "--gcloud-flag", "gcloud compute tpus ... create")


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say what to run and how long to keep trying."""
    parser.add_argument(
        "--wheel",
        type=Path,
        help="install this wheel; only configs/, tasks/ and launch/ are copied from the checkout",
    )
    parser.add_argument(
        "--delete", action="store_true", help="delete the TPU at the end, also after a failure"
    )
    parser.add_argument(
        "--max-restarts",
        type=at_least(0),
        default=100,
        help="how often an interrupted job is started again (default: 100)",
    )
    parser.add_argument(
        "--poll",
        type=at_least(0, float),
        default=30,
        metavar="SECONDS",
        help="time between looks at the state (default: 30)",
    )
    parser.add_argument(
        "--grace",
        type=at_least(0),
        default=10,
        metavar="POLLS",
        help="how long to watch a failed job's TPU for a preemption (default: 10)",
    )
    arguments.add_job_flags(parser)


def warn_of_local_workdir(command: list[str], args: argparse.Namespace, runner: CommandRunner):
    """Warn if the run's files would be lost with the TPU."""
    for word, next_word in zip(command, [*command[1:], ""], strict=True):
        flag, equals, value = word.partition("=")
        workdir = value if equals else next_word
        if flag == "--workdir" and not workdir.startswith(("gs://", "/mnt/")):
            event = "a preemption" if args.spot else "deleting the TPU"
            runner.note(
                f"warning: the workdir {workdir} is on the hosts' own disks; {event} loses it"
            )


def run(job: TpuJob, command: list[str]) -> None:
    """Run the command until it is done.

    Raises:
        LaunchError: It failed, or it was interrupted too often.
    """
    args = job.args
    runner = job.runner
    warn_of_local_workdir(command, args, runner)
    for restart in range(args.max_restarts + 1):
        try:
            outcome = run_once(job, command, again=restart > 0)
        except Interrupted:
            outcome = "interrupted"
        if outcome == "done":
            runner.note("done")
            return
        if outcome == "failed":
            raise LaunchError(f"the job failed; its log is ift_jobs/{args.name}/log on the hosts")
        runner.note("the job was interrupted; starting it again")
    raise LaunchError(f"gave up after {args.max_restarts} restarts (--max-restarts)")


def run_once(job: TpuJob, command: list[str], again: bool) -> str:
    """Run the command, or join it where it is already running, and return its outcome."""
    if job.tpu.bring_up(again):
        job.log_position = 0
    states = job.states()
    if set(states) == {"running"} and not again:
        job.runner.note("the job is already running")
    else:
        if "running" in states:  # These hosts survived the loss of another.
            job.stop()
        job.deploy()
    job.start(command)
    return job.follow()


def main() -> int:
    """Do what the verb says."""
    args = parse()
    tpu = TpuSlice(args, CommandRunner(args.dry_run))
    job = TpuJob(tpu)
    if args.verb == "delete":
        tpu.delete()
        return 0
    if args.verb == "stop":
        job.stop()
        return 0
    if args.verb == "status":
        job.show_status()
        return 0
    try:
        run(job, args.command)
    except KeyboardInterrupt:
        # Ctrl-C ends the watching; it must not lose the run.
        print(
            f"\nno longer following {args.name}, which keeps running and costing money; "
            "the same command line follows it again"
        )
        return 130
    except LostContact as error:
        raise LostContact(f"{error}; {args.name} may still be running and costing money") from None
    except LaunchError:
        if args.delete and tpu.is_ours:
            tpu.delete()
        raise
    if args.delete:
        tpu.delete()
    return 0


if __name__ == "__main__":
    run_launcher(main)
