"""`ift prepare`.

For example:
  ift prepare --config configs/quickstart.py
"""

import argparse

from ift_jax.commands import arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    arguments.add_config(parser)


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    config = arguments.load_config(args)
    from tasks.preparation.request import open_or_prepare

    for which in ("train", "eval", *(["heldout"] if config.data.heldout_mixture else [])):
        _, view = open_or_prepare(config, which, log=print)
        examples = sum(len(store) for store in view.stores)
        tokens = sum(int(store.lengths.sum()) for store in view.stores)
        print(f"{which}: {len(view.tasks)} tasks, {examples:,} examples, {tokens:,} tokens")
        for name, store in zip(view.tasks, view.stores, strict=True):
            print(f"  {name}: {store.path}")
