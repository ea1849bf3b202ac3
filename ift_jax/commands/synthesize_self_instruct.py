r"""`ift synthesize self-instruct`: tasks like those of a seed file, written by a model.

For example:
  ift synthesize self-instruct --seeds seed_tasks.jsonl --model runs/mine --target 500 \
    --output made.jsonl
  ift synthesize self-instruct --variant alpaca --seeds seed_tasks.jsonl --target 52000 \
    --endpoint http://localhost:8000/v1 --endpoint-model mine --output made.jsonl

A line of --seeds is {"instruction": "...", "instances": [{"input": "...", "output": "..."}],
"is_classification": false}, or Alpaca's {"instruction": "...", "input": "...", "output": "..."}.
A line of --output is Alpaca's; `ift train --data FILE` reads it.
SIGTERM or Ctrl-C ends it; an endpoint first finishes the answers that it has begun. The same
command again continues, and with a larger --target adds to the data set.
"""

import argparse
import dataclasses

from ift_jax.commands import synthesis_run
from ift_jax.commands.arguments import whole_number
from ift_jax.errors import UserError
from ift_jax.io.stop_signals import StopSignals

VARIANTS = ("paper", "alpaca")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument(
        "--seeds", required=True, metavar="FILE", help="tasks that people wrote, as JSON lines"
    )
    parser.add_argument(
        "--variant",
        choices=VARIANTS,
        default="paper",
        help="paper (default): instructions, then their kind, then their instances; alpaca: all in "
        "one answer",
    )
    parser.add_argument(
        "--tasks-per-prompt",
        type=whole_number(4),
        metavar="N",
        help="with --variant alpaca, tasks in a text, the 3 that it is shown included; default: 20",
    )
    synthesis_run.add_model(parser)
    synthesis_run.add_rounds(parser, "instances")
    synthesis_run.add_sampling(
        parser,
        "instance",
        temperature="0.7, alpaca 1",
        top_p="0.5, alpaca 1",
        max_tokens="1,024, alpaca 3,072",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns the status of a signal that stopped it."""
    from ift_jax.io.files import json_digest
    from ift_jax.synthesis import prompts, self_instruct, single_stage
    from ift_jax.synthesis.seeds import read_seeds

    of_paper = {
        "--instance-temperature": args.instance_temperature,
        "--max-instance-tokens": args.max_instance_tokens,
    }
    others = of_paper if args.variant == "alpaca" else {"--tasks-per-prompt": args.tasks_per_prompt}
    for flag, value in others.items():
        if value is not None:
            raise UserError(f"{flag}: --variant {args.variant} has no use for it")
    variant = single_stage if args.variant == "alpaca" else self_instruct
    settings = variant.Settings(**synthesis_run.given(args, variant.Settings))
    synthesis_run.check_settings(args, settings)
    seeds = read_seeds(args.seeds, variant.SHOWN_TASKS)
    recipe = (
        single_stage.SingleStage(seeds, settings)
        if isinstance(settings, single_stage.Settings)
        else self_instruct.SelfInstruct(seeds, settings)
    )
    all_settings = {
        "variant": args.variant,
        "seeds": json_digest(seeds),
        "prompts": prompts.VERSION,
        **dataclasses.asdict(settings),
    }
    signals = StopSignals()
    completer = synthesis_run.open_completer(args, signals)
    return synthesis_run.run_recipe(args, recipe, completer, all_settings, signals)
