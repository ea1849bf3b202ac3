"""`ift export`.

For example:
  ift export --workdir runs/mine --output models/mine
  ift export --workdir runs/mine --output models/mine --dtype bfloat16 --shard-size 2
  ift export --workdir runs/lora --output adapters/mine --adapter --base HuggingFaceTB/SmolLM2-135M

Adapters of a run with LoRA are merged into the weights, unless --adapter is given.
"""

import argparse

from ift_jax.commands import arguments
from ift_jax.errors import UserError
from ift_jax.io.outputs import new_output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    arguments.add_model(parser)
    parser.add_argument(
        "--output",
        required=True,
        type=arguments.local_path,
        metavar="DIR",
        help="the folder to make",
    )
    parser.add_argument(
        "--dtype",
        choices=("source", "float32", "bfloat16", "float16"),
        default="source",
        help="the type of the weights; source (default): as the model was released, or float32 for "
        "a model from scratch",
    )
    parser.add_argument(
        "--shard-size",
        type=arguments.number,
        default=5.0,
        metavar="GB",
        help="largest size of a file of weights; default: 5",
    )
    parser.add_argument(
        "--adapter",
        action="store_true",
        help="write only the adapters of a run with LoRA, in PEFT's format",
    )
    parser.add_argument(
        "--base",
        default="",
        metavar="NAME",
        help="with --adapter: the base model that the adapter names; default: where the run began",
    )


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    if args.shard_size <= 0:
        raise UserError(f"--shard-size: expected a positive number of GB; got {args.shard_size}")
    with new_output(args.output, "--output"):
        _export(args)


def _export(args: argparse.Namespace) -> None:
    """Reads the model and writes the folder."""
    from ift_jax.checkpoint.export_adapter import export_adapter
    from ift_jax.checkpoint.export_model import export_model
    from ift_jax.checkpoint.load_model import load_model

    source = arguments.open_model(args)
    if args.adapter:
        export_adapter(source, args.output, base=args.base)
        print(f"the adapters of step {source.step} of {args.workdir} in {args.output}")
        return
    loaded = load_model(source)
    shard_bytes = int(args.shard_size * 1e9)
    notes = export_model(source, loaded, args.output, dtype=args.dtype, shard_bytes=shard_bytes)
    for note in notes:
        print(note)
    print(f"step {loaded.step} of {args.workdir} in {args.output}")
