"""`ift export`.

For example:
  ift export --workdir runs/mine --output models/mine
  ift export --workdir runs/mine --output models/mine --dtype bfloat16 --shard-size 2
  ift export --workdir runs/mine --output mine.gguf --dtype q8_0
  ift export --workdir runs/lora --output adapters/mine --adapter --base HuggingFaceTB/SmolLM2-135M

Adapters of a run with LoRA are merged into the weights, unless --adapter is given. README.md of the
folder is a model card for the Hugging Face hub, made from the files of the workdir; the license is
left to you.

With an output that ends in .gguf, one file is written for llama.cpp and what builds on it: weights,
tokenizer, chat template and the tokens that end an answer, of a Llama, Qwen2 or Qwen3 with a
byte-level BPE tokenizer. It needs the package gguf: launch/setup.sh gguf.
"""

import argparse
import os

from ift_jax.commands import arguments
from ift_jax.errors import UserError
from ift_jax.io.outputs import file_output, new_output
from ift_jax.io.paths import displayed

_GGUF = ".gguf"  # `gguf_export.SUFFIX`, without what that imports.
_DTYPE = "source"
_SHARD_GB = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    arguments.add_model(parser)
    parser.add_argument(
        "--output",
        required=True,
        type=arguments.local_path,
        metavar="DIR",
        help="the folder to make, or the file if the name ends in .gguf",
    )
    parser.add_argument(
        "--dtype",
        choices=("source", "float32", "bfloat16", "float16", "q8_0"),
        help="the type of the weights; source (default): as the model was released, or float32 for "
        "a model from scratch; q8_0, for a GGUF file alone: 8 bits a weight",
    )
    parser.add_argument(
        "--shard-size",
        type=arguments.number,
        default=None,
        metavar="GB",
        help=f"largest size of a file of weights; default: {_SHARD_GB:g}",
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
    if args.shard_size is not None and args.shard_size <= 0:
        raise UserError(f"--shard-size: expected a positive number of GB; got {args.shard_size}")
    if args.output.endswith(_GGUF):
        _check_gguf_flags(args)
        args.dtype = args.dtype or _DTYPE
        with file_output(args.output, "--output"):
            _export_gguf(args)
        return
    if args.adapter:
        given = {"--dtype": args.dtype, "--shard-size": args.shard_size}
        for flag, value in given.items():
            if value is not None:
                raise UserError(f"{flag} {value}: is for weights; --adapter writes none")
    args.dtype = args.dtype or _DTYPE
    if args.dtype == "q8_0":
        raise UserError("--dtype q8_0: is for GGUF files; name an --output that ends in .gguf")
    with new_output(args.output, "--output"):
        _export(args)


def _check_gguf_flags(args: argparse.Namespace) -> None:
    """Refuses flags that a GGUF file has no use for, and a file that is there."""
    given = {
        "--adapter": args.adapter,
        "--base": bool(args.base),
        "--shard-size": args.shard_size is not None,
    }
    for flag in (flag for flag, is_given in given.items() if is_given):
        raise UserError(f"{flag}: is for folders; the --output ends in .gguf, one file")
    if os.path.exists(args.output):
        raise UserError(f"--output {args.output}: is there already; name a new file")


def _export_gguf(args: argparse.Namespace) -> None:
    """Reads the model and writes the file."""
    from ift_jax.checkpoint.export_model import export_model_as_gguf
    from ift_jax.checkpoint.load_model import load_model

    source = arguments.open_model(args)
    loaded = load_model(source)
    export_model_as_gguf(source, loaded, args.output, dtype=args.dtype)
    size = os.path.getsize(args.output) / 1e6
    print(
        f"step {loaded.step} of {displayed(args.workdir)} is in {displayed(args.output)}, a file "
        f"for llama.cpp ({size:,.1f} MB)"
    )


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
    shard_bytes = int((_SHARD_GB if args.shard_size is None else args.shard_size) * 1e9)
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
    if args.dtype != _DTYPE:
        flags += ["--dtype", args.dtype]
    if args.adapter:
        flags.append("--adapter")
    if args.base:
        flags += ["--base", args.base]
    return tuple(flags)
