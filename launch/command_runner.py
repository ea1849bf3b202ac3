"""Runs the command-line tools of clouds and clusters, or prints their commands in a dry run."""

import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence

# How to get a tool that is not on the PATH.
INSTALL = {
    "gcloud": "install the Google Cloud CLI, https://cloud.google.com/sdk/docs/install",
    "xpk": "install it with `pip install xpk`",
    "sbatch": "run this where Slurm's commands are, such as the login node",
}


class LaunchError(Exception):
    """A mistake of the user or a tool that failed; it is shown as one line."""


class CommandRunner:
    """Runs commands, or prints them in a dry run."""

    def __init__(self, dry_run: bool):
        self.dry_run = dry_run

    def note(self, line: str) -> None:
        """Print a line about what happens; in a dry run it is a comment among the commands."""
        print(f"# {line}" if self.dry_run else line, flush=True)

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        show: bool = False,
    ) -> subprocess.CompletedProcess:
        """Run a command to its end, whatever its exit status is.

        Args:
            argv: The command and its arguments.
            stdin: Text for its standard input.
            show: Let the output go to the terminal as it comes, instead of capturing it.

        Raises:
            LaunchError: The command is not on the PATH.
        """
        if self.dry_run:
            print(shlex.join(argv), flush=True)
            return subprocess.CompletedProcess(argv, 0, "", "")
        output = None if show else subprocess.PIPE
        source = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        try:
            return subprocess.run(argv, stdout=output, stderr=output, text=True, **source)
        except FileNotFoundError:
            hint = INSTALL.get(argv[0], "")
            raise LaunchError(f"{argv[0]} is not on PATH{hint and ': ' + hint}") from None

    def run_or_fail(
        self,
        argv: Sequence[str],
        purpose: str,
        *,
        stdin: str | None = None,
        show: bool = False,
    ) -> str:
        """Run a command that has to succeed, and return its captured output.

        Args:
            argv: The command and its arguments.
            purpose: What could not be done if it fails, such as "create the cluster pod".
            stdin: As in `run`.
            show: As in `run`; the returned output is then empty.

        Raises:
            LaunchError: The exit status is not 0.
        """
        result = self.run(argv, stdin=stdin, show=show)
        if result.returncode:
            raise LaunchError(f"could not {purpose}: {failure_reason(result)}")
        return result.stdout or ""


def failure_reason(result: subprocess.CompletedProcess) -> str:
    """Return the line of a tool's output that says why it failed."""
    lines = [line.strip() for line in (result.stderr or "").splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line or line.lower().startswith("error")]
    if errors:
        said = errors[-1]
    elif lines:
        said = lines[-1]
    else:
        said = "see its output above"
    return f"{result.args[0]} exited with {result.returncode}: {said}"


def run_launcher(main: Callable[[], int | None]) -> None:
    """Run a launcher's main function; a LaunchError ends it with one line and exit status 1."""
    try:
        sys.exit(main() or 0)
    except LaunchError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
