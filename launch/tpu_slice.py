"""A Cloud TPU slice, or several as one queued resource: finding, creating and deleting it."""

import argparse
import json
import time
from typing import Any

from command_runner import CommandRunner, LaunchError, failure_reason

# https://docs.cloud.google.com/tpu/docs/runtimes
RUNTIMES = {
    "v2": "tpu-ubuntu2204-base",
    "v3": "tpu-ubuntu2204-base",
    "v4": "tpu-ubuntu2204-base",
    "v5litepod": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}
# The states of TPU VMs and those of queued resources; no word has two meanings.
READY_TPU_VM = "READY"
READY_QUEUED_RESOURCE = "ACTIVE"
READY = {READY_TPU_VM, READY_QUEUED_RESOURCE}
# States that pass without help.
TRANSIENT = {
    "ACCEPTED",
    "CREATING",
    "DELETING",
    "PROVISIONING",
    "REIMAGING",
    "REPAIRING",
    "RESTARTING",
    "STARTING",
    "STOPPING",
    "SUSPENDING",
    "UNHIDING",
    "WAITING_FOR_RESOURCES",
}
# States of what remains of a preempted TPU: its disk is gone, and it never comes back.
GONE = {"PREEMPTED", "SUSPENDED", "TERMINATED"}
# How often the state is asked for without an answer before giving up.
SILENT_POLLS = 20


class Interrupted(Exception):
    """The hosts went away while the job was running on them."""


class LostContact(LaunchError):
    """Google Cloud or the hosts do not answer; the job may still be running."""


class TpuSlice:
    """A TPU VM, or a queued resource of one or more TPU VMs, with the name of the job."""

    def __init__(self, args: argparse.Namespace, runner: CommandRunner):
        self.args = args
        self.runner = runner
        self.name = args.name
        self.queued = args.queued or args.slices > 1
        self.kind = "queued-resources" if self.queued else "tpu-vm"
        # True once it has the requested shape. Only then may a failed run delete it.
        self.is_ours = False
        # In a dry run nothing exists at first, and afterwards everything is ready.
        self._seen_by_dry_run = False

    def gcloud(self, verb: str, *flags: str, alpha: bool = False) -> list[str]:
        """Build a gcloud command for this kind of resource, in its project and zone."""
        return [
            "gcloud",
            *(["alpha"] if alpha else []),
            "compute",
            "tpus",
            self.kind,
            verb,
            *flags,
            f"--project={self.args.project}",
            f"--zone={self.args.zone}",
            "--quiet",
        ]

    def remote(self, verb: str, *arguments: str, first_host: bool = False) -> list[str]:
        """Build an ssh or scp command for all hosts, or for the first one."""
        flags = ["--worker=0" if first_host else "--worker=all"]
        if self.queued:
            flags.append("--node=0" if first_host else "--node=all")
        if self.args.internal_ip:
            flags.append("--internal-ip")
        if self.args.tunnel_through_iap:
            flags.append("--tunnel-through-iap")
        # For a TPU VM, only the alpha track of gcloud has --tunnel-through-iap.
        alpha = self.args.tunnel_through_iap and not self.queued
        return self.gcloud(verb, *arguments, *flags, alpha=alpha)

    def describe(self, tries: int = 1) -> dict[str, Any] | None:
        """Return Google Cloud's description of the resource, or None if it does not exist.

        Raises:
            LostContact: None of the tries was answered.
        """
        for attempt in range(tries):
            if attempt:
                time.sleep(self.args.poll)
            result = self.runner.run(self.gcloud("describe", self.name, "--format=json"))
            if self.runner.dry_run:
                return self._describe_in_dry_run()
            if not result.returncode:
                return json.loads(result.stdout)
            if "NOT_FOUND" in result.stderr:
                return None
        raise LostContact(f"could not look at {self.name}: {failure_reason(result)}")

    def _describe_in_dry_run(self) -> dict[str, Any] | None:
        if not self._seen_by_dry_run:
            self._seen_by_dry_run = True
            return None
        return {"state": READY_QUEUED_RESOURCE if self.queued else READY_TPU_VM}

    def is_ready(self) -> bool:
        """Return whether it is ready now, waiting if the network is away for a while."""
        return state_of(self.describe(tries=SILENT_POLLS)) in READY

    def check_shape(self, found: dict[str, Any]) -> None:
        """Accept an existing resource only if it has the requested type and number of slices.

        Raises:
            LaunchError: The name belongs to a resource of another shape.
        """
        args = self.args
        if not self.runner.dry_run:
            nodes = found.get("tpu", {}).get("nodeSpec", []) if self.queued else [{"node": found}]
            types = {node.get("node", {}).get("acceleratorType") for node in nodes}
            counts = [node.get("multisliceParams") or node.get("multiNodeParams") for node in nodes]
            slices = sum(int((count or {}).get("nodeCount", 1)) for count in counts)
            if (types, slices) != ({args.accelerator_type}, args.slices):
                existing = ", ".join(sorted(str(kind) for kind in types))
                raise LaunchError(
                    f"{self.name} exists with {slices} x {existing}, not with {args.slices} x "
                    f"{args.accelerator_type} as requested: use another name, or delete it first"
                )
        self.is_ours = True

    def _create_flags(self) -> list[str]:
        args = self.args
        runtime = args.runtime_version or RUNTIMES[args.accelerator_type.partition("-")[0]]
        flags = [f"--accelerator-type={args.accelerator_type}"]
        if not self.queued:
            flags.append(f"--version={runtime}")
        elif args.slices == 1:
            flags += [f"--runtime-version={runtime}", f"--node-id={self.name}"]
        else:
            flags += [
                f"--runtime-version={runtime}",
                f"--node-count={args.slices}",
                f"--node-prefix={self.name}",
            ]
        if args.spot:
            flags.append("--spot")
        if args.reserved:
            flags.append("--reserved")
        if args.reservation:
            flags.append(f"--reservation={args.reservation}")
        flags += [f"--data-disk={self._data_disk(disk)}" for disk in args.data_disk]
        if args.service_account:
            flags.append(f"--service-account={args.service_account}")
        if args.network:
            flags.append(f"--network={args.network}")
        if args.subnetwork:
            flags.append(f"--subnetwork={args.subnetwork}")
        if args.no_external_ips:
            flags.append("--internal-ips")
        for flag, values in (("labels", args.label), ("tags", args.tag), ("scopes", args.scope)):
            if values:
                flags.append(f"--{flag}={','.join(values)}")
        return flags + args.gcloud_flag

    def _data_disk(self, disk: str) -> str:
        """Return a disk as gcloud takes it: its path and mode."""
        name, _, mode = disk.partition(":")
        if "/" not in name:
            name = f"projects/{self.args.project}/zones/{self.args.zone}/disks/{name}"
        return f"source={name},mode={mode or 'read-write'}"

    def create(self) -> None:
        """Request the resource.

        Raises:
            LaunchError: Google Cloud refused the request.
        """
        self.is_ours = True
        self.runner.note(
            f"creating {self.name} ({self.args.slices} x {self.args.accelerator_type})"
        )
        # Only the alpha track of gcloud has --reservation.
        alpha = bool(self.args.reservation)
        command = self.gcloud("create", self.name, *self._create_flags(), alpha=alpha)
        self.runner.run_or_fail(command, f"create {self.name}")

    def delete(self) -> None:
        """Delete the resource if it exists."""
        if not self.runner.dry_run and self.describe() is None:
            return
        self.runner.note(f"deleting {self.name}")
        flags = ["--force"] if self.queued else []  # --force deletes the TPU VMs in it, too.
        self.runner.run_or_fail(self.gcloud("delete", self.name, *flags), f"delete {self.name}")

    def bring_up(self, again: bool) -> bool:
        """Wait until the resource is ready, and create it if it is missing or was preempted.

        Args:
            again: The job ran before, so missing capacity is waited for.

        Returns:
            Whether it was created, so that its disks are new.

        Raises:
            Interrupted: It failed while it was created again.
            LaunchError: It cannot be created, has another shape, or will not become ready.
        """
        created = False
        last_state = None
        while True:
            found = self.describe()
            state = state_of(found)
            if found and not self.is_ours:
                self.check_shape(found)
            if state in READY:
                return created
            if state != last_state:
                self.runner.note(f"{self.name} {f'is {state}' if state else 'does not exist'}")
                last_state = state
            if found is None:
                self._create_or_wait_for_capacity(again)
                created = True
            elif state in GONE and self.args.spot:
                self.delete()
            elif state == "FAILED" and again:  # For example, no capacity within the time allowed.
                self.delete()
                time.sleep(self.args.poll)
                raise Interrupted(f"{self.name} could not be created again")
            elif state == "STOPPED" and not self.queued:
                self.runner.run_or_fail(self.gcloud("start", self.name), f"start {self.name}")
            elif state in TRANSIENT:
                time.sleep(self.args.poll)
            else:
                raise LaunchError(
                    f"{self.name} is {state} and will not become ready by itself; see `gcloud "
                    f"compute tpus {self.kind} describe {self.name}`, and launch/tpu_vm.py delete"
                )

    def _create_or_wait_for_capacity(self, again: bool) -> None:
        try:
            self.create()
        except LaunchError as error:
            if "no more capacity" not in str(error):
                raise
            if not again:
                raise LaunchError(f"{error} (--queued waits for capacity)") from None
            self.runner.note(f"{error}; trying again")
            time.sleep(self.args.poll)


def state_of(found: dict[str, Any] | None) -> str | None:
    """Return the state in a description as one word, or None if nothing was found."""
    if not found:
        return None
    state = found.get("state", "")
    return state.get("state", "") if isinstance(state, dict) else state
