"""What the launchers share: checks of what a user typed, and running or showing a tool's commands.

Standard library only, so that a launcher runs on a laptop with a plain Python 3.11.
"""

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

NAME = r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?"
PROJECT = r"([a-z0-9.-]+:)?[a-z][-a-z0-9]{4,28}[a-z0-9]"
ZONE = r"[a-z]+-[a-z]+[0-9]+-[a-z0-9]+"
ENVIRONMENT = r"[A-Za-z_][A-Za-z0-9_]*=(.|\n)*"
INSTALL = {
    "gcloud": "install the Google Cloud CLI, https://cloud.google.com/sdk/docs/install",
    "xpk": "install it with `pip install xpk`",
    "sbatch": "run this where Slurm's commands are, such as the login node",
}


class LaunchError(Exception):
    """A mistake of the user's, or a tool that failed: shown as one line."""


def text(pattern: str, expected: str) -> Callable[[str], str]:
    """For argparse's `type`: text that matches the whole pattern."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise argparse.ArgumentTypeError(f"{value!r} is not {expected}")
        return value

    return check


def at_least(minimum: float, kind: type = int) -> Callable[[str], float]:
    """For argparse's `type`: a number that is not smaller."""

    def check(value: str) -> float:
        try:
            number = kind(value)
        except ValueError:
            number = None
        if number is None or not number >= minimum:
            raise argparse.ArgumentTypeError(f"{value!r} is not a number of at least {minimum}")
        return number

    return check


name = text(NAME, "a name: a lower-case letter, then letters, digits and hyphens, 63 in all")
environment = text(ENVIRONMENT, "of the form NAME=VALUE")


def add_cloud(parser: argparse.ArgumentParser) -> None:
    """Where in Google Cloud."""
    parser.add_argument(
        "--project", required=True, type=text(PROJECT, "a project's id, such as my-project-1")
    )
    parser.add_argument("--zone", required=True, type=text(ZONE, "a zone, such as us-east5-a"))


def add_job(parser: argparse.ArgumentParser) -> None:
    """What runs, and whether anything runs at all."""
    parser.add_argument(
        "--env", action="append", default=[], type=environment, metavar="NAME=VALUE",
        help="an environment variable of the job; may be repeated",
    )  # fmt: skip
    add_dry_run(parser)
    parser.set_defaults(needs_command=True)
    parser.epilog = "After a -- comes what runs on every host: ... -- ift train --config FILE ..."


def add_dry_run(parser: argparse.ArgumentParser) -> None:
    """`--dry-run`."""
    parser.add_argument(
        "--dry-run", action="store_true", help="print every command, quoted, and run none"
    )


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The flags, and as `command` what follows the first `--`, untouched."""
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    args = parser.parse_args(words[:end])
    args.command = words[end + 1 :]
    if getattr(args, "needs_command", False) and not args.command:
        parser.error("no command: end with, say, -- ift train --config FILE --workdir DIR")
    return args


class Tools:
    """Runs commands, or prints them where it is a dry run."""

    def __init__(self, dry_run: bool):
        self.dry_run = dry_run

    def note(self, line: str) -> None:
        """A line about what happens; a comment among the commands of a dry run."""
        print(f"# {line}" if self.dry_run else line, flush=True)

    def run(
        self, argv: Sequence[str], *, stdin: str | None = None, show: bool = False
    ) -> subprocess.CompletedProcess:
        """Runs to the end, whatever the exit status, which the caller looks at.

        With `show` the output goes to the terminal as it comes, else it is captured.
        """
        if self.dry_run:
            print(shlex.join(argv), flush=True)
            return subprocess.CompletedProcess(argv, 0, "", "")
        output = None if show else subprocess.PIPE
        feed = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
        try:
            return subprocess.run(argv, stdout=output, stderr=output, text=True, **feed)
        except FileNotFoundError:
            hint = INSTALL.get(argv[0], "")
            raise LaunchError(f"{argv[0]} is not on PATH{hint and ': ' + hint}") from None

    def must(self, argv: Sequence[str], what: str, **options) -> str:
        """Runs; an exit status other than 0 is an error that says what could not be done."""
        result = self.run(argv, **options)
        if result.returncode:
            raise LaunchError(f"could not {what}: {reason(result)}")
        return result.stdout or ""


def reason(result: subprocess.CompletedProcess) -> str:
    """The line of a tool's output that says why it failed."""
    lines = [line.strip() for line in (result.stderr or "").splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line or line.lower().startswith("error")]
    said = (errors or lines[-1:] or ["see its output above"])[-1]
    return f"{result.args[0]} exited with {result.returncode}: {said}"


def main(run: Callable[[], int | None]) -> None:
    """Runs a launcher; a LaunchError ends it with one line and exit status 1."""
    try:
        sys.exit(run() or 0)
    except LaunchError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
