"""A Cloud TPU slice, or several as one queued resource, and the job on its hosts."""

import argparse
import json
import shlex
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

import job
from job import LaunchError, Tools

# https://docs.cloud.google.com/tpu/docs/runtimes
RUNTIMES = {
    "v2": "tpu-ubuntu2204-base",
    "v3": "tpu-ubuntu2204-base",
    "v4": "tpu-ubuntu2204-base",
    "v5litepod": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}
READY_STATE = {False: "READY", True: "ACTIVE"}  # Of a TPU VM, of a queued resource.
READY = set(READY_STATE.values())
# A node's states and a queued resource's; they share no word with two meanings.
COMING = {
    "CREATING", "STARTING", "RESTARTING", "REIMAGING", "REPAIRING", "STOPPING", "DELETING",
    "UNHIDING", "ACCEPTED", "PROVISIONING", "WAITING_FOR_RESOURCES", "SUSPENDING",
}  # fmt: skip
# What is left of a preempted one: its disk is gone, and it never comes back.
GONE = {"PREEMPTED", "TERMINATED", "SUSPENDED"}
SILENCE = 20  # Looks without an answer before giving up.
# Where on the hosts, relative to the home folder.
FOLDER, ARCHIVE = "ift_jax", "ift_jax.tar.gz"
UNPACK = (
    f"mkdir -p {FOLDER} && cd {FOLDER}"
    # What the checkout no longer has goes; .venv and runs stay.
    " && { [ ! -f .unpacked ] || xargs -r -d '\\n' rm -f -- < .unpacked; }"
    f" && tar -xzf ../{ARCHIVE} && tar -tzf ../{ARCHIVE} > .unpacked"
)


class Interrupted(Exception):
    """The hosts went away under the job."""


class LostContact(LaunchError):
    """Google Cloud or the hosts do not answer; the job may well go on."""


class Tpu:
    """A TPU VM, or a queued resource with one or more of them, and the job on its hosts."""

    def __init__(self, args: argparse.Namespace, tools: Tools):
        self.args, self.tools = args, tools
        self.queued = args.queued or args.slices > 1
        self.kind = "queued-resources" if self.queued else "tpu-vm"
        self.is_ours = False  # Whether it may be deleted: found to be what was asked for.
        self.hosts = 0  # Known once the job was started.
        self.shown = 0  # Bytes of the log.
        self._dry_states = iter([None])

    def _gcloud(self, verb: str, *flags: str, alpha: bool = False) -> list[str]:
        return [
            "gcloud", *(["alpha"] if alpha else []), "compute", "tpus", self.kind, verb, *flags,
            f"--project={self.args.project}", f"--zone={self.args.zone}", "--quiet",
        ]  # fmt: skip

    def _remote(self, verb: str, *what: str, first: bool = False) -> list[str]:
        """Ssh or scp, to all hosts or to the first."""
        where = ["--worker=0" if first else "--worker=all"]
        if self.queued:
            where.append("--node=0" if first else "--node=all")
        if self.args.internal_ip:
            where.append("--internal-ip")
        if self.args.tunnel_through_iap:
            where.append("--tunnel-through-iap")
        # For single TPU VMs IAP is a flag of the alpha track.
        alpha = self.args.tunnel_through_iap and not self.queued
        return self._gcloud(verb, *what, *where, alpha=alpha)

    def _worker(self, verb: str, *what: str, first: bool = False) -> list[str]:
        command = shlex.join(["bash", f"{FOLDER}/launch/worker.sh", verb, self.args.name, *what])
        return self._remote("ssh", self.args.name, f"--command={command}", first=first)

    def describe(self, tries: int = 1) -> dict | None:
        """What there is of that name, or None."""
        for attempt in range(tries):
            if attempt:
                time.sleep(self.args.poll)
            result = self.tools.run(self._gcloud("describe", self.args.name, "--format=json"))
            if self.tools.dry_run:
                state = next(self._dry_states, READY_STATE[self.queued])
                return state and {"state": state}
            if not result.returncode:
                return json.loads(result.stdout)
            if "NOT_FOUND" in result.stderr:
                return None
        raise LostContact(f"could not look at {self.args.name}: {job.reason(result)}")

    def state(self, found: dict | None) -> str | None:
        """Its state as one word."""
        state = found and found.get("state", "")
        return state.get("state", "") if isinstance(state, dict) else state

    def is_ready(self) -> bool:
        """Whether it is ready now; a network that is away for a while is waited for."""
        return self.state(self.describe(tries=SILENCE)) in READY

    def check(self, found: dict) -> None:
        """Refuses one of the same name that is not what was asked for."""
        if not self.tools.dry_run:
            nodes = found.get("tpu", {}).get("nodeSpec", []) if self.queued else [{"node": found}]
            types = {node.get("node", {}).get("acceleratorType") for node in nodes}
            counts = [node.get("multisliceParams") or node.get("multiNodeParams") for node in nodes]
            slices = sum(int((count or {}).get("nodeCount", 1)) for count in counts)
            wanted = (self.args.accelerator_type, self.args.slices)
            if (types, slices) != ({wanted[0]}, wanted[1]):
                there = ", ".join(sorted(str(kind) for kind in types))
                raise LaunchError(
                    f"{self.args.name} exists with {slices} of {there}, and {wanted[1]} of "
                    f"{wanted[0]} is asked for: use another name, or delete it first"
                )
        self.is_ours = True

    def create(self) -> None:
        """Asks for it."""
        args = self.args
        runtime = args.runtime_version or RUNTIMES[args.accelerator_type.partition("-")[0]]
        flags = [args.name, f"--accelerator-type={args.accelerator_type}"]
        if self.queued:
            flags.append(f"--runtime-version={runtime}")
            one = [f"--node-id={args.name}"]
            several = [f"--node-count={args.slices}", f"--node-prefix={args.name}"]
            flags += several if args.slices > 1 else one
        else:
            flags.append(f"--version={runtime}")
        flags += [f"--{flag}" for flag in ("spot", "reserved") if getattr(args, flag)]
        for flag in ("service_account", "network", "subnetwork"):
            if getattr(args, flag):
                flags.append(f"--{flag.replace('_', '-')}={getattr(args, flag)}")
        if args.no_external_ips:
            flags.append("--internal-ips")
        if args.label:
            flags.append(f"--labels={','.join(args.label)}")
        self.is_ours, self.shown = True, 0
        self.tools.note(f"creating {args.name} ({args.slices} x {args.accelerator_type})")
        self.tools.must(self._gcloud("create", *flags), f"create {args.name}")

    def delete(self) -> None:
        """Deletes it, if it is there."""
        if self.tools.dry_run or self.describe() is not None:
            self.tools.note(f"deleting {self.args.name}")
            force = ["--force"] if self.queued else []  # With its nodes.
            self.tools.must(
                self._gcloud("delete", self.args.name, *force), f"delete {self.args.name}"
            )

    def bring_up(self, again: bool) -> None:
        """Creates it or waits for it, until it is ready; a preempted spot TPU is made anew."""
        name, last = self.args.name, None
        while True:
            found = self.describe()
            state = self.state(found)
            if found and not self.is_ours:
                self.check(found)
            if state in READY:
                return
            if state != last:
                self.tools.note(f"{name} is {state or 'not there'}")
                last = state
            if found is None:
                try:
                    self.create()
                except LaunchError as error:
                    if "no more capacity" not in str(error):
                        raise
                    if not again:
                        raise LaunchError(f"{error} (--queued waits until there is room)") from None
                    self.tools.note(f"{error}; trying again")
                    time.sleep(self.args.poll)
            elif state in GONE and self.args.spot:
                self.delete()
            elif state == "FAILED" and again:  # Such as no room within the time allowed.
                self.delete()
                time.sleep(self.args.poll)
                raise Interrupted(f"{name} could not be made again")
            elif state == "STOPPED" and not self.queued:
                self.tools.must(self._gcloud("start", name), f"start {name}")
            elif state in COMING:
                time.sleep(self.args.poll)
            else:
                raise LaunchError(
                    f"{name} is {state} and will not become ready by itself; see `gcloud compute "
                    f"tpus {self.kind} describe {name}`, and launch/tpu_vm.py delete"
                )

    def _on_hosts(self, argv: list[str], what: str, show: bool = False) -> str:
        """Must work on all hosts, unless they are gone."""
        result = self.tools.run(argv, show=show)
        if result.returncode:
            if not self.is_ready():
                raise Interrupted(f"{self.args.name} went away")
            raise LaunchError(f"could not {what}: {job.reason(result)}")
        return result.stdout or ""

    def deploy(self) -> None:
        """Copies the checkout, or the wheel, and sets it up on all hosts."""
        with tempfile.TemporaryDirectory() as folder:
            archive = Path("" if self.tools.dry_run else folder, ARCHIVE)
            pack(archive, self.args.wheel, self.tools)
            copy = self._remote("scp", str(archive), f"{self.args.name}:{ARCHIVE}")
            self._on_hosts(copy, "copy the checkout")
        self.tools.note("setting up (some minutes on a new TPU)")
        setup = "bash launch/worker.sh setup tpu gcs"
        if self.args.wheel:
            setup = f"WHEEL={shlex.quote(self.args.wheel.name)} {setup}"
        command = f"--command={UNPACK} && {setup}"
        self._on_hosts(self._remote("ssh", self.args.name, command), "set up", show=True)

    def start(self, command: list[str]) -> None:
        """Starts the job on all hosts; where it runs already, it goes on."""
        if self.args.env:
            command = ["env", *self.args.env, *command]
        said = self._on_hosts(self._worker("start", *command), "start the job")
        self.hosts = len(reports(said, self.args.name))

    def job_states(self) -> list[str]:
        """The job's state on each host that answers; empty where it was never set up."""
        return reports(self.tools.run(self._worker("status")).stdout, self.args.name)

    def follow(self) -> str:
        """Shows the first host's log until the job has ended: "done", "failed" or "interrupted"."""
        silent = uneven = 0
        while True:
            self._show_log()
            result = self.tools.run(self._worker("status"))
            if self.tools.dry_run:
                return "done"
            states = reports(result.stdout, self.args.name)
            if result.returncode or len(states) < self.hosts:
                if not self.is_ready():
                    return "interrupted"
                silent += 1
                if silent > SILENCE:
                    raise LostContact(f"{self.args.name} is ready, but its hosts do not answer")
            elif any(state.startswith("stopped") for state in states):
                raise LaunchError("the job was stopped")
            elif "running" not in states or uneven > self.args.grace:
                return self._outcome(states)
            else:
                silent = 0
                # A host whose peers have ended is given time to notice.
                uneven += any(state != "running" for state in states)
            time.sleep(self.args.poll)

    def _outcome(self, states: list[str]) -> str:
        if all(state == "exited 0" for state in states):
            return "done"
        # One host was told to end, or went down; what the others say follows from that.
        broken = any(not state.startswith("exited") for state in states)
        self.tools.note(f"the job ended: {', '.join(sorted(set(states)))}")
        for _ in range(self.args.grace):  # A preemption shows in the state some time later.
            if not self.is_ready():
                return "interrupted"
            if not broken and not self.args.spot:
                break
            time.sleep(self.args.poll)
        return "interrupted" if broken else "failed"

    def _show_log(self) -> None:
        argv = self._worker("follow", str(self.shown), first=True)
        if self.tools.dry_run:
            self.tools.run(argv)
            return
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
            try:
                for line in process.stdout:
                    self.shown += len(line)
                    print(line.decode(errors="replace"), end="", flush=True)
            except KeyboardInterrupt:
                process.terminate()
                raise

    def stop(self) -> None:
        """Ends the job on all hosts."""
        said = self.tools.must(self._worker("stop"), "stop the job")
        for state in reports(said, self.args.name):
            self.tools.note(f"{self.args.name}: {state}")

    def show_status(self) -> None:
        """Its state, and the job's on every host."""
        state = self.state(self.describe())
        self.tools.note(f"{self.args.name} is {state or 'not there'}")
        if state in READY or self.tools.dry_run:
            print(self.tools.must(self._worker("status"), "ask the hosts"), end="")


def reports(output: str, name: str) -> list[str]:
    """What launch/worker.sh said on each host."""
    words = [line.split(maxsplit=3) for line in output.splitlines()]
    return [word[3] for word in words if word[:2] == ["ift-job", name] and len(word) == 4]


def pack(archive: Path, wheel: Path | None, tools: Tools) -> None:
    """Writes what goes to the hosts: the checkout without what git ignores, or a wheel."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=job.ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if listed.returncode:
        raise LaunchError(f"{job.ROOT} is not a git checkout: {listed.stderr.strip()}")
    names = [name for name in listed.stdout.split("\0") if name and (job.ROOT / name).is_file()]
    if wheel:
        if wheel.suffix != ".whl" or not wheel.is_file():
            raise LaunchError(f"--wheel: {wheel} is not a .whl file")
        names = [name for name in names if name.startswith(("launch/", "configs/"))]
        names.append("pyproject.toml")
    if any("\n" in name for name in names):
        raise LaunchError("a file of the checkout has a line break in its name")
    tools.note(f"packing {len(names)} files" + (f" and {wheel}" if wheel else ""))
    if tools.dry_run:
        return
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for name in names:
            tar.add(job.ROOT / name, name)
        if wheel:
            tar.add(wheel, wheel.name)
