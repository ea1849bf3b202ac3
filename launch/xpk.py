#!/usr/bin/env python3
r"""Run a command on TPUs in a GKE cluster through XPK, until it is done.

    launch/xpk.py sft --project my-project-1 --zone us-central1-c --cluster pod \
        --tpu-type tpu7x-128 --docker-image us-docker.pkg.dev/my-project-1/images/ift_jax \
        -- ift train --config configs/tulu3.py:8b --workdir gs://my-bucket/tulu3

This submits it as the workload `sft` and waits for its end. JAX finds the other hosts, also those
of other slices, through the variables that XPK sets in the pods. The cluster restarts a preempted
pod up to `--max-restarts` times; the run then resumes from the newest checkpoint. Without
`--docker-image` XPK builds an image with this checkout, and every start first installs the
packages.
"""

import argparse
import math
import re
import shlex

import arguments
import tpu_types
from arguments import at_least, matching
from checkout import ROOT
from command_runner import CommandRunner, LaunchError, run_launcher

# Runs before the command, in the pod's folder with the checkout.
SET_UP = 'bash launch/setup.sh tpu gcs && PATH="$PWD/.venv/bin:$PATH" && '
# Runs the command. A run that saved after SIGTERM exits with 0, which Kubernetes would take for its
# end: a pod that was told to go fails instead, so that the cluster starts it again. A signal that
# came before the command's number was known is passed on as soon as it is.
RUN = (
    '{{ told=; child=; trap \'told=yes; [ -z "$child" ] || kill -TERM "$child"\' TERM; '
    '{command} & child=$!; [ -z "$told" ] || kill -TERM "$child"; '
    'while :; do code=0; wait "$child" || code=$?; '
    'kill -0 "$child" 2>/dev/null || break; done; [ -z "$told" ] || exit 143; exit "$code"; }}'
)
# What has a meaning only where a cluster is created.
CREATION_FLAGS = (
    "--spot",
    "--on-demand",
    "--reservation",
    "--disk-size",
    "--label",
    "--tag",
    "--node-pool-flag",
    "--cluster-flag",
)
# The exit status of `xpk workload list` that says that the awaited workload failed.
WORKLOAD_FAILED = 125


def tpu_type(value: str) -> str:
    """The argparse type of --tpu-type: a version and a size, or a topology as in v6e-4x4."""
    version, _, sizes = value.partition("-")
    versions = list(tpu_types.SIZES)
    if not re.fullmatch("[0-9]+(x[0-9]+)+", sizes):
        return tpu_types.accelerator_type(value, versions)
    named = tpu_types.OTHER_NAMES.get(version, version)
    if named != version:
        raise argparse.ArgumentTypeError(f"{value!r}: it is called {named}-{sizes}")
    chips = math.prod(map(int, sizes.split("x")))
    size = chips if version in tpu_types.COUNTED_IN_CHIPS else 2 * chips
    tpu_types.accelerator_type(f"{version}-{size}", versions)
    return value


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = arguments.new_parser(__doc__)
    parser.add_argument(
        "name", type=matching(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", "a workload's name")
    )
    arguments.add_cloud_flags(parser)
    add_cluster_flags(parser)
    add_workload_flags(parser)
    arguments.add_job_flags(parser)
    args = arguments.parse(parser)
    if args.no_wait and (args.delete or args.delete_cluster):
        parser.error("--no-wait has no end at which to delete")
    if args.create_cluster and not (args.spot or args.on_demand or args.reservation):
        parser.error("--create-cluster needs --spot, --on-demand or --reservation NAME")
    if not args.create_cluster:
        for flag in CREATION_FLAGS:
            if getattr(args, flag.strip("-").replace("-", "_")):
                parser.error(f"{flag} is for --create-cluster alone: nothing else is created")
    return args


def add_cluster_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the cluster."""
    parser.add_argument("--cluster", required=True, type=arguments.job_name)
    parser.add_argument(
        "--tpu-type",
        required=True,
        type=tpu_type,
        help="such as v5p-128 or tpu7x-128",
    )
    parser.add_argument(
        "--num-slices", type=at_least(1), default=1, help="number of slices (default: 1)"
    )
    parser.add_argument(
        "--create-cluster", action="store_true", help="create the cluster, or resize it"
    )
    capacity = parser.add_mutually_exclusive_group()
    capacity.add_argument(
        "--spot", action="store_true", help="create the cluster with spot capacity"
    )
    capacity.add_argument(
        "--on-demand", action="store_true", help="create the cluster with on-demand capacity"
    )
    capacity.add_argument(
        "--reservation",
        type=arguments.reservation_name,
        help="create the cluster with this reserved capacity",
    )
    parser.add_argument(
        "--disk-size",
        type=at_least(10),
        metavar="GB",
        help="size of the boot disk of the TPU hosts that are created (default: GKE's, 100)",
    )
    arguments.add_label_flags(parser, "the TPU hosts that are created")
    arguments.add_further_flags(parser, "--node-pool-flag", "gcloud container node-pools create")
    arguments.add_further_flags(parser, "--cluster-flag", "xpk cluster create")
    parser.add_argument(
        "--delete-cluster", action="store_true", help="delete the cluster at the end"
    )


def add_workload_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the workload."""
    arguments.add_further_flags(parser, "--xpk-flag", "xpk workload create")
    image = matching(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*", "an image's name")
    images = parser.add_mutually_exclusive_group()
    images.add_argument(
        "--docker-image",
        type=image,
        help="an image with `ift` on its PATH, as of launch/Dockerfile",
    )
    images.add_argument(
        "--base-docker-image",
        type=image,
        default="python:3.12",
        help="the image to which the checkout is added (default: python:3.12)",
    )
    parser.add_argument(
        "--priority",
        choices=("very-low", "low", "medium", "high", "very-high"),
        default="medium",
        help="default: medium",
    )
    parser.add_argument(
        "--max-restarts",
        type=at_least(0),
        default=50,
        help="how often the cluster restarts the pods (default: 50)",
    )
    parser.add_argument(
        "--grace",
        type=at_least(0),
        default=120,
        metavar="SECONDS",
        help="time for saving after SIGTERM (default: 120; a spot host grants less)",
    )
    parser.add_argument("--no-wait", action="store_true", help="submit, and do not wait")
    parser.add_argument(
        "--delete", action="store_true", help="delete the workload at the end, also after a failure"
    )


def pod_command(command: list[str], docker_image: str | None) -> str:
    """Return the command as one line for the pod's shell.

    Raises:
        LaunchError: An argument would not arrive: XPK writes the line into YAML, and Kubernetes
            replaces `$(NAME)` before a shell sees it.
    """
    for word in command:
        if "\n" in word or "$(" in word:
            raise LaunchError(f"{word!r}: XPK cannot pass on a line break or $( in an argument")
    return ("" if docker_image else SET_UP) + RUN.format(command=shlex.join(command))


def create_workload_command(args: argparse.Namespace, cluster: list[str]) -> list[str]:
    """Return the command that submits the workload."""
    if args.docker_image:
        image = [f"--docker-image={args.docker_image}"]
    else:
        image = [f"--base-docker-image={args.base_docker_image}", f"--script-dir={ROOT}"]
    return [
        *("xpk", "workload", "create"),
        f"--workload={args.name}",
        *cluster,
        *size_flags(args),
        *image,
        f"--priority={args.priority}",
        f"--max-restarts={args.max_restarts}",
        f"--termination-grace-period-seconds={args.grace}",
        *(f"--env={variable}" for variable in args.env),
        *args.xpk_flag,
        f"--command={pod_command(args.command, args.docker_image)}",
    ]


def size_flags(args: argparse.Namespace) -> list[str]:
    """Return the flags for the type and number of the slices."""
    return [f"--tpu-type={args.tpu_type}", f"--num-slices={args.num_slices}"]


def node_pool_flags(args: argparse.Namespace) -> list[str]:
    """Return the flags that XPK hands on to gcloud for the pool of TPU hosts."""
    flags = []
    if args.disk_size:
        flags.append(f"--disk-size={args.disk_size}")
    for flag, values in (("labels", args.label), ("tags", args.tag)):
        if values:
            flags.append(f"--{flag}={','.join(values)}")
    return flags + args.node_pool_flag


def create_cluster(args: argparse.Namespace, cluster: list[str], runner: CommandRunner) -> None:
    """Create the cluster with the requested kind of capacity."""
    capacity = []
    if args.spot:
        capacity.append("--spot")
    if args.on_demand:
        capacity.append("--on-demand")
    if args.reservation:
        capacity.append(f"--reservation={args.reservation}")
    command = ["xpk", "cluster", "create", *cluster, *size_flags(args), *capacity]
    if node_pool := node_pool_flags(args):
        command.append(f"--custom-nodepool-arguments={shlex.join(node_pool)}")
    command += args.cluster_flag
    runner.run_or_fail(command, f"create the cluster {args.cluster}", show=True)


def wait_for_workload(args: argparse.Namespace, cluster: list[str], runner: CommandRunner) -> None:
    """Wait until the workload is done.

    Raises:
        LaunchError: It failed, or the waiting did.
    """
    command = ["xpk", "workload", "list", *cluster, f"--wait-for-job-completion={args.name}"]
    code = runner.run(command, show=True).returncode
    if code == WORKLOAD_FAILED:
        raise LaunchError(f"the workload {args.name} failed; its log is in Cloud Logging")
    if code:
        raise LaunchError(f"could not wait for {args.name}: xpk exited with {code}")
    runner.note("done")


def main() -> int:
    """Create the cluster if asked to, submit, wait, and delete what should be deleted."""
    args = parse()
    runner = CommandRunner(args.dry_run)
    cluster = [f"--cluster={args.cluster}", f"--project={args.project}", f"--zone={args.zone}"]
    create_workload = create_workload_command(args, cluster)
    for variable in args.env:
        pod_command([variable], None)  # Raises if the variable would not arrive.
    submitted = False
    try:
        if args.create_cluster:
            create_cluster(args, cluster, runner)
        submitted = True
        runner.run_or_fail(create_workload, f"submit {args.name}", show=True)
        if not args.no_wait:
            wait_for_workload(args, cluster, runner)
    finally:
        if args.delete and submitted:
            command = ["xpk", "workload", "delete", f"--workload={args.name}", *cluster, "--force"]
            runner.run_or_fail(command, f"delete the workload {args.name}", show=True)
        if args.delete_cluster:
            command = ["xpk", "cluster", "delete", *cluster, "--force"]
            runner.run_or_fail(command, f"delete the cluster {args.cluster}", show=True)
    return 0


if __name__ == "__main__":
    run_launcher(main)
