"""`ift train`.

For example:
  ift train --config configs/quickstart.py --workdir runs/quickstart
  ift train --config configs/quickstart.py --workdir runs/low --config.optimizer.learning_rate=1e-4
  ift train --config configs/jsonl.py:my_data.jsonl --workdir runs/mine --dry-run
  ift train --config configs/t0.py:11b --workdir runs/t0 --dry-run
  ift train --config configs/tulu3.py:8b,/models/Llama-3.1-8B --workdir gs://my-bucket/tulu3
"""

import argparse

from ift_jax.commands import arguments, distributed
from ift_jax.io.paths import check_bucket


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    arguments.add_config(parser)
    arguments.add_workdir(parser, "where the run's files go; the same one resumes it")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the resolved config, parameters, tokens and "
        "steps an epoch, fill and memory, or what is missing here to say so; train nothing",
    )
    distributed.add_processes(parser)


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    config = arguments.load_config(args, weights=not args.dry_run)  # Before any device work.
    if not args.dry_run:
        check_bucket(args.workdir, writes=True)
    import jax

    from ift_jax.inspection.dry_run import dry_run
    from ift_jax.training.console import Console
    from ift_jax.training.loop import train

    with distributed.joined(args):
        console = Console(quiet=jax.process_index() > 0)
        if args.dry_run:
            dry_run(config, console)
        else:
            train(config, args.workdir, console)
