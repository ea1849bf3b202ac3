"""`ift export`.

For example:
  ift export --workdir runs/mine --output models/mine
  ift export --workdir runs/mine --output models/mine --dtype bfloat16 --shard-size 2
  ift export --workdir runs/lora --output adapters/mine --adapter --base HuggingFaceTB/SmolLM2-135M

Adapters of a run with LoRA are merged into the weights, unless --adapter is given. README.md of the
folder is a model card for the Hugging Face hub, made from the files of the workdir; the license is
left to you.
"""

import argparse

from ift_jax.commands import arguments
from ift_jax.errors import UserError
from ift_jax.io.outputs import new_output
from ift_jax.io.paths import displayed


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
        help="the base model's name on the Hugging Face hub, for the model card and, with "
        "--adapter, what the adapter's config names; default: where the run began",
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
    from ift_jax.checkpoint.load_model import describe_model, load_model
    from ift_jax.report.card import Subject, model_card

    source = arguments.open_model(args)
    workdir, output = displayed(args.workdir), displayed(args.output)
    if args.adapter:
        described = describe_model(source)
        card = model_card(Subject(source, described, args.output, args.base, True, _flags(args)))
        export_adapter(source, args.output, base=args.base, card=card)
        print(f"the adapters of step {source.step} of {workdir} are in {output}, for PEFT")
        return
    loaded = load_model(source)
    shard_bytes = int(args.shard_size * 1e9)
    card = model_card(Subject(source, loaded, args.output, args.base, False, _flags(args)))
    notes = export_model(
        source, loaded, args.output, dtype=args.dtype, shard_bytes=shard_bytes, card=card
    )
    for note in notes:
        print(note)
    print(f"step {loaded.step} of {workdir} is in {output}, a folder for transformers")


def _flags(args: argparse.Namespace) -> tuple[str, ...]:
    """The flags that the model card shows besides the workdir, the step and the folder."""
    flags = []
    if args.dtype != "source" and not args.adapter:
        flags += ["--dtype", args.dtype]
    if args.adapter:
        flags.append("--adapter")
    if args.base:
        flags += ["--base", args.base]
    return tuple(flags)
