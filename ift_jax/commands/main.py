"""The console script `ift`."""

import argparse
import glob
import importlib
import os
import sys
from collections.abc import Sequence

from ift_jax import __version__
from ift_jax.errors import UserError

COMMANDS = {
    "prepare": "run the tasks, tokenise, and write token stores",
    "train": "train; goes on by itself from the workdir's newest checkpoint",
    "import": "a Hugging Face folder or a GGUF file becomes a workdir",
    "export": "write a workdir's model as a Hugging Face folder",
    "generate": "answer prompts from a file with a trained model; goes on where it was stopped",
    "chat": "talk with a trained model",
    "eval": "answer a config's unseen examples with a trained model, and score the answers",
    "plan": "compile a run for a TPU topology, without it: does it fit, and what it costs",
    "inspect": "show a mixture: counts, rates, lengths, drops, and coloured examples",
}
# What the drivers of TPUs and GPUs (NVIDIA's, in Windows' Linux too, and AMD's) make on Linux.
ACCELERATORS = ("/dev/accel*", "/dev/vfio/[0-9]*", "/dev/nvidia*", "/dev/dxg", "/dev/kfd")


def choose_platform() -> None:
    """Has JAX look for no accelerator where there is none: libtpu would complain of that at length.

    JAX_PLATFORMS, if it is set, stays.
    """
    if sys.platform == "linux" and not any(map(glob.glob, ACCELERATORS)):
        os.environ.setdefault("JAX_PLATFORMS", "cpu")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status (2: the user's mistake, said in one line)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="ift",
        description="Instruction finetuning in JAX.",
        allow_abbrev=False,
        epilog="example: ift train --config configs/quickstart.py --workdir runs/quickstart",
    )
    parser.add_argument("--version", action="version", version=f"ift_jax {__version__}")
    parser.set_defaults(takes_further=lambda args: False)  # Flags behind "--".
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    # Only the command that was named is imported: `ift --help` needs no JAX.
    named = next((word for word in argv if not word.startswith("-")), None)
    for name, text in COMMANDS.items():
        module = importlib.import_module(f"ift_jax.commands.{name}") if name == named else None
        subparser = subparsers.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            allow_abbrev=False,
            epilog=(module.__doc__ or "").partition("\n\n")[2] if module else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if module:
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    own = argv.index("--") if "--" in argv else len(argv)
    args, rest = parser.parse_known_args(argv[:own])
    args.further = argv[own + 1 :]  # Flags for what a command hands them to.
    args.overrides = [word for word in rest if word.startswith("--config.")]
    choose_platform()
    try:
        rest += [] if args.takes_further(args) else argv[own:]
        if unknown := [word for word in rest if word not in args.overrides]:
            raise UserError(f"{unknown[0]}: no such argument; see ift {args.command} --help")
        return args.run(args) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
