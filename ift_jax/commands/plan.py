"""`ift plan`.

For example:
  ift plan --config configs/tulu3_8b.py --topology v5p:4x4x4
  ift plan --config configs/tulu3_8b.py --topology v5e:16x16 --config.train.batch_rows=256
  ift plan --config configs/tulu3_8b.py --topology v5p:2x2x2 --search --json found.json
  ift plan --config configs/t0_11b.py --topology v4:4x4x4 --slices 2 --config.mesh.data=2
It needs no TPU (but pip install 'ift-jax[plan]', on Linux), no weights and no data. Exit status: 0
if the run fits, 1 if not, 2 for a mistake.
"""

import argparse
import json
from typing import Any

import plans
from ift_jax.commands import arguments
from ift_jax.config import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    arguments.add_config(parser)
    parser.add_argument("--topology", required=True, metavar="CHIP:AxB[xC]",
                        help="v4:2x2x2, v5e:16x16, v5p:4x4x4, v6e:16x16, tpu7x:2x2x2")  # fmt: skip
    parser.add_argument("--slices", type=int, default=1, metavar="N",
                        help="of it; config.mesh.data is a multiple of them")  # fmt: skip
    parser.add_argument("--tasks", type=int, default=1, metavar="N",
                        help="tasks of the mixture; each has its loss (default: 1)")  # fmt: skip
    parser.add_argument("--decode", action="store_true",
                        help="compile generation too, as at the run's evaluation")  # fmt: skip
    parser.add_argument("--search", action="store_true",
                        help="rank meshes, remat policies and microbatches")  # fmt: skip
    parser.add_argument("--json", metavar="FILE", help="where to write the same as JSON")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    plans.set_environment()
    config = arguments.load_config(args, weights=False)
    from plans import generation, plan, report, search

    def judge(config: Config) -> dict[str, Any]:
        program = plan.program_of(config, args.topology, args.slices, args.tasks)
        record = report.record_of(program, plan.compile_step(program), args.topology, args.slices)
        if args.decode:
            parts = generation.compile_generation(program).items()
            record["generation"] = {name: report.memory_of(part) for name, part in parts}
        return record

    if args.search:
        n_devices = len(plan.devices_of(args.topology, args.slices))
        said = search.search(search.candidates(config, n_devices, args.slices), judge, print)
        print(*report.ranking(said), "", sep="\n")
    else:
        said = [judge(config)]
    for record in said[:1]:
        print(*report.lines(record), sep="\n")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(said if args.search else said[0], file, indent=2)
    return 0 if any(record["fits"] for record in said) else 1
