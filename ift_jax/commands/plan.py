"""`ift plan`.

For example:
  ift plan --config configs/tulu3.py:8b --topology v5p:4x4x4
  ift plan --config configs/tulu3.py:8b --topology v5e:16x16 --config.train.batch_size=256
  ift plan --config configs/tulu3.py:8b --topology v5p:2x2x2 --search --json found.json
  ift plan --config configs/t0.py:11b --topology v4:4x4x4 --slices 2 --config.mesh.data=2

It needs libtpu (launch/setup.sh plan, on Linux), but no TPU, no weights, and no data. The exit
status is 0 if the run fits, 1 if not, and 2 for an error.
"""

import argparse
import json
from typing import Any

from ift_jax.commands import arguments
from ift_jax.config.schema import Config
from ift_jax.io.outputs import file_output, write_output
from ift_jax.planning.environment import set_environment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    arguments.add_config(parser)
    arguments.add_stage(parser)
    parser.add_argument(
        "--topology",
        required=True,
        metavar="CHIP:AxB[xC]",
        help="v4:2x2x2, v5e:16x16, v5p:4x4x4, v6e:16x16, tpu7x:2x2x2, ...",
    )
    parser.add_argument(
        "--slices",
        type=arguments.whole_number(1),
        default=1,
        metavar="N",
        help="number of such slices; config.mesh.data must be a multiple of it; default: 1",
    )
    parser.add_argument(
        "--tasks",
        type=arguments.whole_number(1),
        default=1,
        metavar="N",
        help="number of tasks in the mixture, each with a loss of its own; default: 1",
    )
    parser.add_argument(
        "--decode",
        action="store_true",
        help="compile generation as well, as in the run's evaluation",
    )
    parser.add_argument(
        "--search",
        action="store_true",
        help="compile several meshes, remat policies, and gradient accumulation steps, and "
        "rank them",
    )
    parser.add_argument(
        "--json",
        type=arguments.local_path,
        metavar="FILE",
        help="where to write the result as JSON",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    set_environment()
    config = arguments.load_config(args, weights=False)
    with file_output(args.json, "--json"):
        return _plan(args, config)


def _plan(args: argparse.Namespace, config: Config) -> int:
    """Compiles one plan or several; returns 1 if none fits."""
    from ift_jax.planning import compile_decode, compile_step, report, search

    def judge(config: Config) -> dict[str, Any]:
        program = compile_step.program_of(config, args.topology, args.slices, args.tasks)
        compiled = compile_step.compile_step(program)
        record = report.step_record(program, compiled, args.topology, args.slices)
        if args.decode:
            parts = compile_decode.compile_generation(program).items()
            record["generation"] = {name: report.memory_record(part) for name, part in parts}
        return record

    if args.search:
        n_devices = len(compile_step.devices_of(args.topology, args.slices))
        candidates = search.candidates(config, n_devices, args.slices)
        records = search.search(candidates, judge, print)
        print(*report.ranking(records), "", sep="\n")
    else:
        records = [judge(config)]
    for record in records[:1]:
        print(*report.lines(record), sep="\n")
    if args.json:
        found = records if args.search else records[0]
        write_output(args.json, json.dumps(found, indent=2).encode())
    return 0 if any(record["fits"] for record in records) else 1
