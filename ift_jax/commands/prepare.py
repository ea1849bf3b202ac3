r"""`ift prepare`.

For example:
  ift prepare --model /models/SmolLM2-135M-Instruct --data chats.jsonl
  ift prepare --config configs/quickstart.py
  ift prepare --config configs/tulu3.py:8b,/models/Llama-3.1-8B --runner DirectRunner \
    -- --direct_running_mode=multi_processing --direct_num_workers=8

Flags after -- are Apache Beam's own. A worker needs this package and the task modules (on its
PYTHONPATH), and must see the data, the tokenizer and data.store_dir under the same paths.
"""

import argparse
import os

from ift_jax.commands import arguments, run_config
from ift_jax.config.schema import Config
from ift_jax.errors import counted
from ift_jax.io.text_tables import MOST_LISTED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    arguments.add_config(parser, required=False)
    arguments.add_stage(parser, "; default: all of them")
    run_config.add_model_and_data(parser)
    parser.add_argument(
        "--runner",
        metavar="NAME",
        help="make the stores with Apache Beam on this runner, such as DirectRunner; default: "
        "processes of this machine",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="name the store of every task, even where there are many tasks",
    )
    parser.set_defaults(takes_further=lambda args: args.runner)  # Beam's flags, after "--".


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    names = [stage.name for stage in run_config.load_stages(args)] if args.config else []
    if args.stage or not names:
        _prepare(args, run_config.load(args).config)
        return
    for name in names:
        print(f"stage {name}")
        args.stage = name
        _prepare(args, run_config.load(args).config)


def _prepare(args: argparse.Namespace, config: Config) -> None:
    """Prepares the stores of one run."""
    from ift_jax.preparation.open_or_prepare import open_or_prepare

    beam: list[str] = []
    if args.runner:
        from ift_jax.preparation.beam import checked_options

        beam = checked_options(args.runner, args.further)
    parts = ["train", "eval"]
    if config.data.heldout_mixture:
        parts.append("heldout")
    for which in parts:
        _, mixture = open_or_prepare(config, which, log=print, beam=beam)
        examples = sum(len(store) for store in mixture.stores)
        tokens = sum(int(store.lengths.sum()) for store in mixture.stores)
        print(
            f"{which}: {counted(len(mixture.tasks), 'task')}, {counted(examples, 'example')}, "
            f"{counted(tokens, 'token')}"
        )
        if len(mixture.tasks) > MOST_LISTED and not args.all:
            print(f"  stores in {config.data.store_dir}; --all names that of each task")
            continue
        for name, store in zip(mixture.tasks, mixture.stores, strict=True):
            print(f"  {name}: {os.path.join(config.data.store_dir, store.path.name)}")
