r"""`ift synthesize`: data that a model makes.

For example:
  ift synthesize self-instruct --seeds seed_tasks.jsonl --model runs/mine --target 500 \
    --output made.jsonl
  ift synthesize magpie --model runs/mine --target 500 --output made.jsonl
  ift synthesize rejection --model runs/mine --prompts prompts.jsonl --reward number --output best
  ift synthesize rejection --help
"""

import argparse
import importlib
import re

# Each is a module `synthesize_<kind>` beside this one, with `add_arguments` and `run`.
KINDS: dict[str, str] = {
    "self-instruct": "write instructions like those of a seed file, and their instances",
    "magpie": "let a chat model write the user's turn, and then answer it",
    "rejection": "sample completions, keep those with the best rewards, and train on them",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The kinds of data, each with its own flags."""
    kinds = parser.add_subparsers(dest="kind", metavar="|".join(KINDS), required=True)
    for name, text in KINDS.items():
        module = importlib.import_module(f"ift_jax.commands.synthesize_{name.replace('-', '_')}")
        of_kind = kinds.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            allow_abbrev=False,
            epilog=(module.__doc__ or "").partition("\n\n")[2],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(of_kind)
        flags = set(re.findall(r"--[a-z][a-z-]*", of_kind.format_help()))
        of_kind.set_defaults(run_kind=module.run, flags=sorted(flags))


def run(args: argparse.Namespace) -> int:
    """Runs the kind of synthesis that was named; returns the exit status."""
    return args.run_kind(args) or 0
