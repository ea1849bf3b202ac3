"""A job on the hosts of a TPU slice: copying the code, starting, following and stopping it."""

import shlex
import subprocess
import tempfile
import time
from pathlib import Path

from checkout import pack
from command_runner import LaunchError, failure_reason
from tpu_slice import READY, SILENT_POLLS, Interrupted, LostContact, TpuSlice, state_of

# Paths on the hosts, relative to the home folder.
FOLDER = "ift_jax"
ARCHIVE = "ift_jax.tar.gz"
UNPACK = (
    f"mkdir -p {FOLDER} && cd {FOLDER}"
    # Remove what the previous archive held, so that files deleted in the checkout go, too; the
    # environment and the runs were not in it and stay.
    " && { [ ! -f .unpacked ] || xargs -r -d '\\n' rm -f -- < .unpacked; }"
    f" && tar -xzf ../{ARCHIVE} && tar -tzf ../{ARCHIVE} > .unpacked"
)


class TpuJob:
    """The job with the name of the slice, on all hosts of it."""

    def __init__(self, tpu: TpuSlice):
        self.tpu = tpu
        self.args = tpu.args
        self.runner = tpu.runner
        self.name = tpu.name
        self.hosts = 0  # Known once the job was started.
        self.log_position = 0  # Bytes of the first host's log that were shown.

    def _worker(self, verb: str, *arguments: str, first_host: bool = False) -> list[str]:
        """Build the command that runs launch/worker.sh on the hosts."""
        words = ["bash", f"{FOLDER}/launch/worker.sh", verb, self.name, *arguments]
        command = f"--command={shlex.join(words)}"
        return self.tpu.remote("ssh", self.name, command, first_host=first_host)

    def _on_hosts(self, argv: list[str], purpose: str, show: bool = False) -> str:
        """Run a command that has to succeed on all hosts, unless the hosts are gone.

        Raises:
            Interrupted: The slice is no longer ready.
            LaunchError: The command failed on hosts that are ready.
        """
        result = self.runner.run(argv, show=show)
        if result.returncode:
            if not self.tpu.is_ready():
                raise Interrupted(f"{self.name} went away")
            raise LaunchError(f"could not {purpose}: {failure_reason(result)}")
        return result.stdout or ""

    def deploy(self) -> None:
        """Copy the checkout, or the wheel and what belongs beside it, and set up all hosts."""
        with tempfile.TemporaryDirectory() as folder:
            archive = Path("" if self.runner.dry_run else folder, ARCHIVE)
            pack(archive, self.args.wheel, self.runner)
            copy = self.tpu.remote("scp", str(archive), f"{self.name}:{ARCHIVE}")
            self._on_hosts(copy, "copy the checkout")
        self.runner.note("setting up the hosts (a few minutes on a new TPU)")
        setup = "bash launch/worker.sh setup tpu gcs"
        if self.args.wheel:
            setup = f"WHEEL={shlex.quote(self.args.wheel.name)} {setup}"
        command = self.tpu.remote("ssh", self.name, f"--command={UNPACK} && {setup}")
        self._on_hosts(command, "set up the hosts", show=True)

    def start(self, command: list[str]) -> None:
        """Start the command on all hosts; a host where it already runs is left alone."""
        if self.args.env:
            command = ["env", *self.args.env, *command]
        output = self._on_hosts(self._worker("start", *command), "start the job")
        self.hosts = len(reported_states(output, self.name))

    def states(self) -> list[str]:
        """Return the job's state on each host that answers; none if it was never set up."""
        return reported_states(self.runner.run(self._worker("status")).stdout, self.name)

    def follow(self) -> str:
        """Show the first host's log until the job ends.

        Returns:
            "done", "failed" or "interrupted".

        Raises:
            LaunchError: The job was stopped by `launch/tpu_vm.py stop`.
            LostContact: The slice is ready, but its hosts do not answer.
        """
        silent_polls = 0
        uneven_polls = 0
        while True:
            self._show_log()
            result = self.runner.run(self._worker("status"))
            if self.runner.dry_run:
                return "done"
            states = reported_states(result.stdout, self.name)
            if result.returncode or len(states) < self.hosts:
                if not self.tpu.is_ready():
                    return "interrupted"
                silent_polls += 1
                if silent_polls > SILENT_POLLS:
                    raise LostContact(f"{self.name} is ready, but its hosts do not answer")
            elif any(state.startswith("stopped") for state in states):
                raise LaunchError("the job was stopped")
            elif "running" not in states or uneven_polls > self.args.grace:
                return self._outcome(states)
            else:
                silent_polls = 0
                # Hosts need some time to notice that others have ended.
                if any(state != "running" for state in states):
                    uneven_polls += 1
            time.sleep(self.args.poll)

    def _outcome(self, states: list[str]) -> str:
        if all(state == "exited 0" for state in states):
            return "done"
        # If one host was told to end or went down, the exits of the others are a consequence.
        broken = any(not state.startswith("exited") for state in states)
        self.runner.note(f"the job ended: {', '.join(sorted(set(states)))}")
        for _ in range(self.args.grace):  # The state shows a preemption only some time later.
            if not self.tpu.is_ready():
                return "interrupted"
            if not broken and not self.args.spot:
                break
            time.sleep(self.args.poll)
        return "interrupted" if broken else "failed"

    def _show_log(self) -> None:
        argv = self._worker("follow", str(self.log_position), first_host=True)
        if self.runner.dry_run:
            self.runner.run(argv)
            return
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
            try:
                for line in process.stdout:
                    self.log_position += len(line)
                    print(line.decode(errors="replace"), end="", flush=True)
            except KeyboardInterrupt:
                process.terminate()
                raise

    def stop(self) -> None:
        """Stop the job on all hosts with SIGTERM, so that it saves."""
        output = self.runner.run_or_fail(self._worker("stop"), "stop the job")
        for state in reported_states(output, self.name):
            self.runner.note(f"{self.name}: {state}")

    def show_status(self) -> None:
        """Print the state of the slice, and the job's state on every host."""
        state = state_of(self.tpu.describe())
        self.runner.note(f"{self.name} {f'is {state}' if state else 'does not exist'}")
        if state in READY or self.runner.dry_run:
            print(self.runner.run_or_fail(self._worker("status"), "ask the hosts"), end="")


def reported_states(output: str, name: str) -> list[str]:
    """Return the states in the lines that launch/worker.sh printed, one for each host."""
    words = [line.split(maxsplit=3) for line in output.splitlines()]
    return [word[3] for word in words if word[:2] == ["ift-job", name] and len(word) == 4]
