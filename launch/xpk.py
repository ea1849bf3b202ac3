#!/usr/bin/env python3
r"""Runs a command on TPUs in a GKE cluster through XPK, until it is done.

    launch/xpk.py sft --project my-project-1 --zone us-central1-c --cluster pod \
        --tpu-type tpu7x-128 --docker-image us-docker.pkg.dev/my-project-1/images/ift_jax \
        -- ift train --config configs/tulu3_8b.py --workdir gs://my-bucket/tulu3

submits it as the workload `sft` and waits for its end. JAX finds its peers, over several slices
too, by what XPK sets in the pods. A preempted pod is started again by the cluster,
`--max-restarts` times, and resumes from the newest checkpoint. Without `--docker-image` XPK puts
this checkout into an image of its own on the way, and every start installs the packages first.
"""

import argparse
import shlex

import job
from job import LaunchError, Tools

# In the pod's folder with the checkout, before the command.
SET_UP = 'bash launch/setup.sh tpu gcs && PATH="$PWD/.venv/bin:$PATH" && '


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("name", type=job.text(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", "a workload's name"))
    job.add_cloud(parser)
    add("--cluster", required=True, type=job.name)
    add(
        "--tpu-type", required=True, help="such as v5p-128 or tpu7x-128",
        type=job.text(r"[a-z0-9]+-[0-9]+(x[0-9]+)*", "a TPU type, such as v5p-128"),
    )  # fmt: skip
    add("--num-slices", type=job.at_least(1), default=1, help="default: 1")
    image = job.text(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*", "an image's name")
    images = parser.add_mutually_exclusive_group()
    images.add_argument("--docker-image", type=image, help="has `ift` on PATH: launch/Dockerfile")
    images.add_argument(
        "--base-docker-image", type=image, default="python:3.12",
        help="the checkout is put on top of it (default: python:3.12)",
    )  # fmt: skip
    add("--create-cluster", action="store_true", help="make the cluster, or bring it up to size")
    capacity = parser.add_mutually_exclusive_group()
    capacity.add_argument("--spot", action="store_true", help="of the cluster that is created")
    capacity.add_argument("--on-demand", action="store_true", help="the same")
    capacity.add_argument(
        "--reservation", type=job.text(r"[A-Za-z0-9][A-Za-z0-9._/,-]*", "a reservation's name")
    )
    levels = ("very-low", "low", "medium", "high", "very-high")
    add("--priority", choices=levels, default="medium", help="default: medium")
    add("--max-restarts", type=job.at_least(0), default=50, help="default: 50")
    add(
        "--grace", type=job.at_least(0), default=120, metavar="SECONDS",
        help="for saving after SIGTERM (default: 120; a spot host grants less)",
    )  # fmt: skip
    add("--no-wait", action="store_true", help="submit only")
    add(
        "--delete", action="store_true", help="delete the workload at the end, also after a failure"
    )
    add("--delete-cluster", action="store_true", help="delete the cluster as well")
    job.add_job(parser)
    args = job.parse(parser)
    if args.no_wait and (args.delete or args.delete_cluster):
        parser.error("--no-wait has no end at which to delete")
    if args.create_cluster and not (args.spot or args.on_demand or args.reservation):
        parser.error("--create-cluster needs --spot, --on-demand or --reservation NAME")
    return args


def in_pod(command: list[str], docker_image: str | None) -> str:
    """The command as one line for the pod's shell.

    Kubernetes replaces `$(NAME)` before a shell sees it, and XPK writes the line into YAML.
    """
    for word in command:
        if "\n" in word or "$(" in word:
            raise LaunchError(f"{word!r}: XPK cannot pass on a line break or $( in an argument")
    # XPK sends SIGTERM to the process that it started, which is then the command itself.
    return ("" if docker_image else SET_UP) + "exec " + shlex.join(command)


def main() -> int:
    """Creates the cluster where asked, submits, waits, deletes where asked."""
    args = parse()
    tools = Tools(args.dry_run)
    place = [f"--project={args.project}", f"--zone={args.zone}"]
    cluster = [f"--cluster={args.cluster}", *place]
    line = in_pod(args.command, args.docker_image)
    for variable in args.env:
        in_pod([variable], None)
    size = [f"--tpu-type={args.tpu_type}", f"--num-slices={args.num_slices}"]
    create = ["xpk", "workload", "create", f"--workload={args.name}", *cluster, *size]
    if args.docker_image:
        create.append(f"--docker-image={args.docker_image}")
    else:
        create += [f"--base-docker-image={args.base_docker_image}", f"--script-dir={job.ROOT}"]
    create += [
        f"--priority={args.priority}", f"--max-restarts={args.max_restarts}",
        f"--termination-grace-period-seconds={args.grace}",
        *(f"--env={variable}" for variable in args.env), f"--command={line}",
    ]  # fmt: skip
    wait = ["xpk", "workload", "list", *cluster, f"--wait-for-job-completion={args.name}"]
    submitted = False
    try:
        if args.create_cluster:
            kinds = [
                f"--{kind}"
                for kind in ("spot", "on-demand")
                if getattr(args, kind.replace("-", "_"))
            ]
            if args.reservation:
                kinds.append(f"--reservation={args.reservation}")
            made = ["xpk", "cluster", "create", *cluster, *size, *kinds]
            tools.must(made, f"create the cluster {args.cluster}", show=True)
        submitted = True
        tools.must(create, f"submit {args.name}", show=True)
        if not args.no_wait:
            code = tools.run(wait, show=True).returncode
            if code == 125:  # As XPK documents it.
                raise LaunchError(
                    f"the workload {args.name} ended without success; its log is in Cloud Logging"
                )
            if code:
                raise LaunchError(f"could not wait for {args.name}: xpk exited with {code}")
            tools.note("done")
    finally:
        if args.delete and submitted:
            gone = ["xpk", "workload", "delete", f"--workload={args.name}", *cluster, "--force"]
            tools.must(gone, f"delete the workload {args.name}", show=True)
        if args.delete_cluster:
            gone = ["xpk", "cluster", "delete", *cluster, "--force"]
            tools.must(gone, f"delete the cluster {args.cluster}", show=True)
    return 0


if __name__ == "__main__":
    job.main(main)
