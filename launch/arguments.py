"""Argument types and flags that the launchers share.

The launchers use the standard library only, so that they run on a laptop with a plain Python 3.11.
"""

import argparse
import re
import sys
from collections.abc import Callable

NAME = r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?"
PROJECT = r"([a-z0-9.-]+:)?[a-z][-a-z0-9]{4,28}[a-z0-9]"
ZONE = r"[a-z]+-[a-z]+[0-9]+-[a-z0-9]+"
ENVIRONMENT = r"[A-Za-z_][A-Za-z0-9_]*=(.|\n)*"


def matching(pattern: str, expected: str) -> Callable[[str], str]:
    """Return an argparse type: text that matches the whole pattern."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise argparse.ArgumentTypeError(f"{value!r} is not {expected}")
        return value

    return check


def at_least(minimum: float, kind: type = int) -> Callable[[str], float]:
    """Return an argparse type: a number that is not below the minimum."""

    def check(value: str) -> float:
        try:
            number = kind(value)
        except ValueError:
            number = None
        if number is None or not number >= minimum:
            raise argparse.ArgumentTypeError(f"{value!r} is not a number of at least {minimum}")
        return number

    return check


job_name = matching(
    NAME, "a name: a lower-case letter, then letters, digits and hyphens, at most 63 in all"
)
environment_variable = matching(ENVIRONMENT, "of the form NAME=VALUE")


def new_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser that shows a launcher's docstring as it is written."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_cloud_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that locate something in Google Cloud."""
    parser.add_argument(
        "--project",
        required=True,
        type=matching(PROJECT, "a project's id, such as my-project-1"),
    )
    parser.add_argument(
        "--zone",
        required=True,
        type=matching(ZONE, "a zone, such as us-east5-a"),
    )


def add_dry_run_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--dry-run`."""
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print every command, quoted for a shell, and run none",
    )


def add_job_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a parser that takes a command to run."""
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        type=environment_variable,
        metavar="NAME=VALUE",
        help="an environment variable of the job; may be repeated",
    )
    add_dry_run_flag(parser)
    parser.set_defaults(needs_command=True)
    parser.epilog = (
        "The command that runs on every host follows after --: ... -- ift train --config FILE ..."
    )


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line; `command` is everything after the first `--`, untouched."""
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    args = parser.parse_args(words[:end])
    args.command = words[end + 1 :]
    if getattr(args, "needs_command", False) and not args.command:
        parser.error("no command: end with, say, -- ift train --config FILE --workdir DIR")
    return args
