"""The console script `ift`."""

import argparse
import glob
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from ift_jax import __version__
from ift_jax.errors import UserError

COMMANDS = {
    "prepare": "run the tasks, tokenize, and write token stores",
    "train": "train a model; resumes from the newest checkpoint in the workdir",
    "import": "make a workdir from a Hugging Face folder or a GGUF file",
    "export": "write the model of a workdir as a Hugging Face folder",
    "generate": "answer prompts from a file with a trained model; resumes an interrupted run",
    "chat": "talk with a trained model",
    "eval": "answer unseen examples with a trained model, and score the answers",
    "plan": "compile a run for a TPU topology without a TPU: does it fit, and what does it cost?",
    "inspect": "show a mixture: counts, rates, lengths, dropped examples, and colored examples",
}
# Device files of TPUs and GPUs (NVIDIA's, also in Windows' Linux, and AMD's) on Linux.
ACCELERATORS = ("/dev/accel*", "/dev/vfio/[0-9]*", "/dev/nvidia*", "/dev/dxg", "/dev/kfd")


def choose_platform() -> None:
    """Forces the CPU backend if no accelerator exists; otherwise libtpu prints warnings.

    JAX_PLATFORMS, if it is set, stays.
    """
    if sys.platform == "linux" and not any(map(glob.glob, ACCELERATORS)):
        os.environ.setdefault("JAX_PLATFORMS", "cpu")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit status: 0, 2 for a user's mistake (reported in one line), 130 after Ctrl-C, or
        another status of the command's own; 141 if the reader of its output is gone.
    """
    try:
        try:
            return _run(list(sys.argv[1:] if argv is None else argv))
        finally:
            sys.stdout.flush()  # A closed pipe is noticed here rather than at Python's exit.
    except BrokenPipeError:
        _discard_output()
        return 141  # As if SIGPIPE had ended it.


def _run(argv: list[str]) -> int:
    parser = _parser(argv)
    # Flags after "--" are for a program that the command hands them to.
    end = argv.index("--") if "--" in argv else len(argv)
    args, rest = parser.parse_known_args(argv[:end])
    args.further = argv[end + 1 :]
    args.overrides = [word for word in rest if word.startswith("--config.")]
    takes_config = hasattr(args, "config")
    unknown = [word for word in rest if not takes_config or word not in args.overrides]
    if not args.takes_further(args):
        unknown += argv[end:]
    choose_platform()
    try:
        if unknown:
            raise UserError(f"{unknown[0]}: no such argument; see ift {args.command} --help")
        return args.run(args) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _discard_output() -> None:
    """Sends the rest of the output nowhere, so that Python's exit does not fail to write it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser for all commands, with the flags of the command that `argv` names."""
    parser = argparse.ArgumentParser(
        prog="ift",
        description="Instruction finetuning in JAX.",
        allow_abbrev=False,
        epilog="example: ift train --config configs/quickstart.py --workdir runs/quickstart",
    )
    parser.add_argument("--version", action="version", version=f"ift_jax {__version__}")
    parser.set_defaults(takes_further=lambda args: False)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    # Only the module of that command is imported: `ift --help` needs no JAX.
    named = next((word for word in argv if not word.startswith("-")), None)
    for name, text in COMMANDS.items():
        module = importlib.import_module(f"ift_jax.commands.{name}") if name == named else None
        subparser = subparsers.add_parser(
            name,
            help=text,
            description=_sentence(text),
            allow_abbrev=False,
            epilog=_examples(module) if module else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if module:
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    return parser


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + ("" if text.endswith("?") else ".")


def _examples(module: ModuleType) -> str:
    """A command's docstring after its first line."""
    return (module.__doc__ or "").partition("\n\n")[2]


if __name__ == "__main__":
    sys.exit(main())
