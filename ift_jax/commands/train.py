"""`ift train`.

For example:
  ift train --model /models/SmolLM2-135M-Instruct --data chats.jsonl --workdir runs/mine
  ift train --model /models/Qwen3-0.6B --data chats.jsonl --lora --workdir runs/lora
  ift train --workdir runs/mine --track wandb
  ift train --config configs/quickstart.py --workdir runs/traced --profile 10:13
  ift train --config configs/quickstart.py --workdir runs/quickstart
  ift train --config configs/quickstart.py --workdir runs/low --config.optimizer.learning_rate=1e-4
  ift train --config configs/jsonl.py:my_data.jsonl --workdir runs/mine --dry-run
  ift train --config configs/t0.py:11b --workdir runs/t0 --dry-run
  ift train --config configs/tulu3.py:8b,/models/Llama-3.1-8B --workdir gs://my-bucket/tulu3
  ift train --help-config
"""

import argparse
from typing import TYPE_CHECKING

from ift_jax.commands import arguments, distributed, run_config
from ift_jax.config.stages import Stage
from ift_jax.errors import UserError
from ift_jax.io.first_import import first_import
from ift_jax.io.outputs import check_workdir

if TYPE_CHECKING:  # `ift train --help` needs no JAX.
    from ift_jax.training.console import Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    arguments.add_config(parser, required=False)
    run_config.add_model_and_data(parser)
    arguments.add_workdir(parser, "where the run writes its files; the same one resumes the run")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="train nothing; print the resolved config, the numbers of parameters, tokens, and "
        "steps per epoch, the fill of rows, and the memory, or what is missing on this machine",
    )
    parser.add_argument(
        "--track",
        metavar="NAMES",
        help="trackers that receive the metrics: wandb, mlflow, trackio, or several with commas; "
        "TensorBoard's event files are always written",
    )
    parser.add_argument(
        "--profile",
        type=arguments.steps,
        default=range(0),
        metavar="FIRST:LAST",
        help="trace these steps, both included, for TensorBoard and xprof; the trace is written "
        "into tensorboard/ of the workdir",
    )
    parser.add_argument(
        "--allow-new-data",
        action="store_true",
        help="resume a run although its data, template, or order of batches has changed since it "
        "began; the model keeps its tokenizer",
    )
    distributed.add_processes(parser)


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    if args.track is not None:
        names = tuple(name for name in args.track.split(",") if name != "tensorboard")
        args.overrides.append(f"--config.train.track={names!r}")
    if args.dry_run and args.profile:
        raise UserError("--profile: expected a run; --dry-run trains no step")
    # Mistakes in the config and the bucket are found before any device is used. What is chosen
    # depends on the devices, which may be used only after all processes have joined.
    chooses = run_config.chooses(args)
    weights = not args.dry_run
    stages = [] if chooses else run_config.load_stages(args, weights=weights)
    chosen = None if chooses or stages else run_config.load(args, weights=weights)
    if stages and args.profile:
        raise UserError(
            "--profile: expected a run without stages; each stage numbers its own steps"
        )
    if not args.dry_run:
        check_workdir(args.workdir)
    with first_import("jax"):
        import jax

        from ift_jax.training.console import Console

        if args.dry_run:
            from ift_jax.inspection.dry_run import dry_run
        else:
            from ift_jax.training.loop import train

    with distributed.joined(args):
        console = Console(quiet=jax.process_index() > 0)
        if stages:
            _run_stages(args, stages, console)
            return
        config, reasons = chosen or run_config.load(args, console.line)
        if args.dry_run:
            dry_run(config, args.workdir, console, allow_new_data=args.allow_new_data)
        else:
            train(
                config,
                args.workdir,
                console,
                reasons,
                allow_new_data=args.allow_new_data,
                profile=args.profile,
            )


def _run_stages(args: argparse.Namespace, stages: list[Stage], console: "Console") -> None:
    if args.dry_run:
        from ift_jax.inspection.dry_run import dry_run_stages

        dry_run_stages(stages, args.workdir, console, allow_new_data=args.allow_new_data)
        return
    from ift_jax.training.stages import train_stages

    train_stages(stages, args.workdir, console, allow_new_data=args.allow_new_data)
