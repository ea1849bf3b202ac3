#!/usr/bin/env python3
r"""Runs a command on a Cloud TPU slice, or on several, until it is done.

    launch/tpu_vm.py run sft --project my-project-1 --zone us-east5-a --accelerator-type v5p-64 \
        --spot --delete -- ift train --config configs/tulu3_8b.py --workdir gs://my-bucket/tulu3

creates the TPU or uses the one of that name, copies this checkout, sets it up, starts the command
on every host detached from the connection, and shows the log of the first host. A preempted spot
TPU is made anew and the command started again, which resumes from the newest checkpoint. After
Ctrl-C, or from another machine, the same line finds the running job and shows its log. Nothing is
deleted unless `--delete` or `delete` asks for it, except that a preempted TPU has to be deleted
before its name can be used again.
"""

import argparse
from pathlib import Path

import job
from job import LaunchError, Tools
from tpu_slice import RUNTIMES, Interrupted, LostContact, Tpu


def accelerator(value: str) -> str:
    """The type of accelerator, checked."""
    version, _, size = value.partition("-")
    if version.startswith(("tpu7", "v7")):
        raise argparse.ArgumentTypeError(
            f"{value!r}: the Cloud TPU API ends at v6e; TPU7x is reached through GKE, launch/xpk.py"
        )
    if version not in RUNTIMES or not size.isdigit() or int(size) < 1:
        raise argparse.ArgumentTypeError(
            f"{value!r} is not VERSION-SIZE with a version of {', '.join(RUNTIMES)}"
        )
    return value


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, does in {
        "run": "creates or uses the TPU, and runs the command until it is done",
        "status": "the TPU's state, and the job's on every host",
        "stop": "ends the job by SIGTERM, so that it saves; keeps the TPU",
        "delete": "deletes the TPU",
    }.items():
        sub = verbs.add_parser(verb, help=does, description=does)
        sub.add_argument("name", type=job.name, help="of the TPU and of the job")
        job.add_cloud(sub)
        sub.add_argument("--slices", type=job.at_least(1), default=1, help="default: 1")
        sub.add_argument(
            "--queued", action="store_true",
            help="a queued resource: waits in Google's queue for room (always so with --slices)",
        )  # fmt: skip
        way = sub.add_mutually_exclusive_group()
        way.add_argument(
            "--internal-ip",
            action="store_true",
            help="ssh inside the network, without external IPs",
        )
        way.add_argument("--tunnel-through-iap", action="store_true", help="ssh through IAP")
        if verb == "run":
            add_run(sub)
        else:
            job.add_dry_run(sub)
    return job.parse(parser)


def add_run(parser: argparse.ArgumentParser) -> None:
    """The flags of `run`."""
    add = parser.add_argument
    add(
        "--accelerator-type", required=True, type=accelerator, help="such as v5litepod-16 or v5p-64"
    )
    add(
        "--runtime-version", type=job.text(r"[a-z0-9][a-z0-9.-]*", "a runtime version"),
        help="default: the documented one for the accelerator",
    )  # fmt: skip
    capacity = parser.add_mutually_exclusive_group()
    capacity.add_argument("--spot", action="store_true", help="cheaper, and may be preempted")
    capacity.add_argument("--reserved", action="store_true", help="from the project's reservation")
    add(
        "--service-account", help="the identity of the hosts, which needs to reach the bucket",
        type=job.text(r"[a-z0-9-]+@[a-z0-9.-]+\.gserviceaccount\.com", "a service account"),
    )  # fmt: skip
    resource = job.text(r"[A-Za-z0-9][A-Za-z0-9._/-]*", "a network's name or path")
    add("--network", type=resource)
    add("--subnetwork", type=resource)
    add("--no-external-ips", action="store_true", help="hosts without external addresses")
    add(
        "--label", action="append", default=[], metavar="KEY=VALUE", help="may be repeated",
        type=job.text(r"[a-z][a-z0-9_-]{0,62}=[a-z0-9_-]{0,63}", "KEY=VALUE in lower case"),
    )  # fmt: skip
    add("--wheel", type=Path, help="install this instead of the checkout (configs/ goes along)")
    add("--delete", action="store_true", help="delete the TPU at the end, also after a failure")
    add(
        "--max-restarts", type=job.at_least(0), default=100,
        help="how often a lost job is started again (default: 100)",
    )  # fmt: skip
    add("--poll", type=job.at_least(0, float), default=30, metavar="SECONDS", help="default: 30")
    add(
        "--grace", type=job.at_least(0), default=10, metavar="POLLS",
        help="how long a broken job's TPU is watched for a preemption (default: 10)",
    )  # fmt: skip
    job.add_job(parser)


def warn_of_local_workdir(command: list[str], args: argparse.Namespace, tools: Tools) -> None:
    """Says so where the run's files would be lost with the TPU."""
    for flag, value in zip(command, [*command[1:], ""], strict=True):
        value = flag.partition("=")[2] if flag.startswith("--workdir=") else value
        if flag.partition("=")[0] == "--workdir" and not value.startswith(("gs://", "/mnt/")):
            lost = "a preemption" if args.spot else "deleting the TPU"
            tools.note(f"warning: the workdir {value} is on the hosts' own disks; {lost} loses it")


def run(tpu: Tpu, command: list[str]) -> int:
    """Until the job is done, has failed, or was lost too often."""
    args, tools = tpu.args, tpu.tools
    warn_of_local_workdir(command, args, tools)
    for restart in range(args.max_restarts + 1):
        try:
            tpu.bring_up(again=restart > 0)
            states = tpu.job_states()
            if set(states) == {"running"} and not restart:
                tools.note("the job runs already")
            else:
                if "running" in states:  # On hosts that lived on while another was lost.
                    tpu.stop()
                tpu.deploy()
            tpu.start(command)
            outcome = tpu.follow()
        except Interrupted:
            outcome = "interrupted"
        if outcome == "done":
            tools.note("done")
            return 0
        if outcome == "failed":
            raise LaunchError(f"the job failed; its log is on the hosts, ift_jobs/{args.name}/log")
        tools.note("the job was interrupted; it is started again")
    raise LaunchError(f"given up after {args.max_restarts} restarts (--max-restarts)")


def main() -> int:
    """One verb."""
    args = parse()
    tools = Tools(args.dry_run)
    tpu = Tpu(args, tools)
    if args.verb == "delete":
        tpu.delete()
    elif args.verb == "stop":
        tpu.stop()
    elif args.verb == "status":
        tpu.show_status()
    else:
        try:
            run(tpu, args.command)
        except KeyboardInterrupt:
            # Whoever looks away does not want to lose the run.
            print(
                f"\nnot followed any more; {args.name} goes on, and costs; the same line follows it"
            )
            return 130
        except LostContact as error:
            raise LostContact(f"{error}; {args.name} may go on, and costs") from None
        except LaunchError:
            if args.delete and tpu.is_ours:
                tpu.delete()
            raise
        if args.delete:
            tpu.delete()
    return 0


if __name__ == "__main__":
    job.main(main)
