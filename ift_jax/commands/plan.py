"""`ift plan`.

For example:
  ift plan --config configs/tulu3_8b.py --topology v5p:4x4x4
  ift plan --config configs/tulu3_8b.py --topology v5e:16x16 --config.train.batch_rows=256
  ift plan --config configs/t0_11b.py --topology v4:4x4x4 --slices 2 --config.mesh.data=2
It needs no TPU (but pip install 'ift-jax[plan]', on Linux), no weights and no data. Exit status: 0
if the run fits, 1 if not, 2 for a mistake.
"""

import argparse
import json

from ift_jax import planning
from ift_jax.commands import arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    arguments.add_config(parser)
    parser.add_argument("--topology", required=True, metavar="CHIP:AxB[xC]",
                        help="v4:2x2x2, v5e:16x16, v5p:4x4x4, v6e:16x16, tpu7x:2x2x2")  # fmt: skip
    parser.add_argument("--slices", type=int, default=1, metavar="N",
                        help="of it; config.mesh.data is a multiple of them")  # fmt: skip
    parser.add_argument("--tasks", type=int, default=1, metavar="N",
                        help="tasks of the mixture; each has its loss (default: 1)")  # fmt: skip
    parser.add_argument("--json", metavar="FILE", help="where to write the same as JSON")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    planning.set_environment()
    config = arguments.load_config(args, weights=False)
    from ift_jax.planning import plan, report

    program = plan.program_of(config, args.topology, args.slices, args.tasks)
    record = report.record_of(program, plan.compile_step(program), args.topology, args.slices)
    print(*report.lines(record), sep="\n")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(record, file, indent=2)
    return 0 if record["fits"] else 1
