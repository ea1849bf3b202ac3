"""`ift report`.

For example:
  ift report runs/mine
  ift report runs/a runs/b --output comparison.html

The page is one file that needs no network. A run writes its own `report.html` when it evaluates.
"""

import argparse
import os

from ift_jax.commands import arguments
from ift_jax.io.outputs import file_output, write_output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument(
        "workdirs",
        nargs="+",
        type=arguments.local_path,
        metavar="RUN",
        help="the local workdir of a run, which may still be running; of a run of stages, those "
        "that have begun are shown side by side",
    )
    parser.add_argument(
        "--output",
        type=arguments.local_path,
        metavar="FILE",
        help="the page to write; default: report.html in the first workdir",
    )


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    from ift_jax.checkpoint.run_description import stage_folders
    from ift_jax.report.report import report
    from ift_jax.report.run_files import REPORT_FILE

    output = args.output or os.path.join(args.workdirs[0], REPORT_FILE)
    workdirs = [run for folder in args.workdirs for run in stage_folders(folder) or [folder]]
    with file_output(output, "--output"):
        write_output(output, report(workdirs).encode())
    print(output)
