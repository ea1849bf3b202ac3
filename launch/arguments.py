"""Argument types and flags that the launchers share.

The launchers use the standard library only, so that they run on a laptop with a plain Python 3.11.
Each imports this module first: what stands before the check of the version has to run on Python
3.8, and all their files have to be parsed by it.
"""

import argparse
import re
import sys
from collections.abc import Callable

if sys.version_info < (3, 11):  # noqa: UP036  macOS has Python 3.9.
    sys.exit(
        "error: Python 3.11 or newer is needed, and {} is {}.{}; install one (`brew install "
        "python@3.12`, `uv python install 3.12`) and run `python3.12 {} ...`".format(
            sys.executable, *sys.version_info[:2], sys.argv[0]
        )
    )

NAME = r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?"
PROJECT = r"([a-z0-9.-]+:)?[a-z][-a-z0-9]{4,28}[a-z0-9]"
ZONE = r"[a-z]+-[a-z]+[0-9]+-[a-z0-9]+"
ENVIRONMENT = r"[A-Za-z_][A-Za-z0-9_]*=(.|\n)*"
LABEL = r"[a-z][a-z0-9_-]{0,62}=[a-z0-9_-]{0,63}"


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
reservation_name = matching(r"[A-Za-z0-9][A-Za-z0-9._/,-]*", "a reservation's name or path")
further_flag = matching(r"--?[A-Za-z](.|\n)*", "a flag, such as --metadata=KEY=VALUE")


def new_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser that shows a launcher's docstring as it is written."""
    return argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
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


def add_repeatable_flag(
    parser: argparse.ArgumentParser, flag: str, kind: Callable[[str], str], metavar: str, text: str
) -> None:
    """Add a flag that may be given several times; its values become a list."""
    parser.add_argument(
        flag,
        action="append",
        default=[],
        type=kind,
        metavar=metavar,
        help=f"{text}; may be repeated",
    )


def add_label_flags(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the flags that mark what is created, such as "the TPU"."""
    label = matching(LABEL, "KEY=VALUE in lower case")
    add_repeatable_flag(parser, "--label", label, "KEY=VALUE", f"a label of {what}")
    add_repeatable_flag(parser, "--tag", job_name, "TAG", f"a network tag of {what}")


def add_further_flags(parser: argparse.ArgumentParser, flag: str, command: str) -> None:
    """Add a flag that hands a flag of another program on to it."""
    text = f"hand this flag to `{command}` as it is, as in {flag}=--some-flag=value"
    add_repeatable_flag(parser, flag, further_flag, "FLAG", text)


def add_dry_run_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--dry-run`."""
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print every command, quoted for a shell, and run none",
    )


def add_job_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a parser that takes a command to run."""
    text = "an environment variable of the job"
    add_repeatable_flag(parser, "--env", environment_variable, "NAME=VALUE", text)
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
    if args.command and not getattr(args, "needs_command", False):
        parser.error(f"{args.command[0]}: nothing is run here, so there is no command after --")
    return args
