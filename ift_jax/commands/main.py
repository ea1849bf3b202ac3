"""The console script `ift`."""

import argparse
import gc
import glob
import importlib
import io
import itertools
import os
import re
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from ift_jax.commands.failures import USER_ERROR, output_is_full, report
from ift_jax.errors import UserError, did_you_mean
from ift_jax.io.stop_signals import interrupts_when_safe
from ift_jax.version import __version__

COMMANDS = {
    "prepare": "run the tasks, tokenize, and write token stores",
    "train": "train a model; resumes from the newest checkpoint in the workdir",
    "sweep": "train a list of configs from one base, and compare their scores; resumable",
    "import": "make a workdir from a Hugging Face folder or a GGUF file",
    "merge": "average models, or checkpoints of a run, into a new workdir",
    "export": "write the model of a workdir as a Hugging Face folder",
    "push": "upload an exported folder to the Hugging Face hub",
    "generate": "answer prompts from a file with a trained model; resumes an interrupted run",
    "chat": "talk with a trained model",
    "serve": "serve a trained model over HTTP, with an API like OpenAI's",
    "synthesize": "make data with a model: Self-Instruct, Magpie, rejection sampling",
    "eval": "answer unseen examples with a trained model, and score the answers",
    "lm-eval": "run lm-evaluation-harness's own command line on a trained model",
    "report": "write a page about runs: losses, scores, answers, speed",
    "compare": "show which of several runs answers best, with intervals",
    "plan": "compile a run for a TPU topology without a TPU: does it fit, and what does it cost?",
    "inspect": "show a mixture: counts, rates, lengths, dropped examples, and colored examples",
}
# Commands that hand their words to another program, which parses and explains them itself.
PROGRAMS = ("lm-eval",)
# Device files of TPUs and GPUs (NVIDIA's, also in Windows' Linux, and AMD's) on Linux.
ACCELERATORS = ("/dev/accel*", "/dev/vfio/[0-9]*", "/dev/nvidia*", "/dev/dxg", "/dev/kfd")
# Python looks for cycles of garbage after so many new objects, by default 700. A run's imports
# make a million that stay, and looking at them again and again took a sixth of the imports' time.
_GARBAGE_THRESHOLDS = (20_000, 10, 10)
_DEBUG = "--debug"
_DEBUG_HELP = "also print the traceback of an error"


def choose_platform() -> None:
    """Forces the CPU backend if no accelerator exists; otherwise libtpu prints warnings.

    JAX_PLATFORMS, if it is set, stays.
    """
    if sys.platform == "linux" and not any(map(glob.glob, ACCELERATORS)):
        os.environ.setdefault("JAX_PLATFORMS", "cpu")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit status: 0, 2 for a user's mistake (reported in one line), 1 for a fault of ours
        (reported with its traceback), 130 after Ctrl-C, or another status of the command's own; 141
        if the reader of its output is gone.
    """
    _prepare_streams()
    if gc.get_threshold()[0] < _GARBAGE_THRESHOLDS[0]:
        gc.set_threshold(*_GARBAGE_THRESHOLDS)
    try:
        try:
            with interrupts_when_safe():
                return _run(list(sys.argv[1:] if argv is None else argv))
        finally:
            sys.stdout.flush()  # A closed pipe is noticed here rather than at Python's exit.
    except BrokenPipeError:
        _discard_output()
        return 141  # As if SIGPIPE had ended it.
    except OSError as error:
        if not output_is_full(error):
            raise
        _discard_output()
        print(f"error: standard output cannot be written: {error.strerror}", file=sys.stderr)
        return USER_ERROR


def _run(argv: list[str]) -> int:
    # Flags after "--" are for a program that the command hands them to.
    end = argv.index("--") if "--" in argv else len(argv)
    debug = _DEBUG in argv[:end]
    # argparse knows no flag of another name whose value has a space, such as a tuple of texts.
    overrides = [word for word in argv[:end] if word.startswith("--config.")]
    words = [word for word in argv[:end] if word not in overrides and word != _DEBUG]
    try:
        if words and words[0] in PROGRAMS and words[1:] not in ([], ["--help"], ["-h"]):
            choose_platform()
            return _module(words[0]).run_program([word for word in argv[1:] if word != _DEBUG])
        _check_overrides(argv[:end])
        parser = _parser(words)
        args, unknown = parser.parse_known_args(words)
        args.overrides = overrides
        args.further = argv[end + 1 :]
        args.debug = debug
        # It takes such a flag for a positional argument.
        unknown += [word for word in words if " " in word and _flag(word) not in ("", *args.flags)]
        if not hasattr(args, "config"):
            unknown += overrides
        if not args.takes_further(args):
            unknown += argv[end:]
        _check_known(unknown, args)
        choose_platform()
        return args.run(args) or 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and output_is_full(error):
            raise
        return report(error, debug=debug)


def _check_overrides(words: Sequence[str]) -> None:
    """Raises a UserError for `--config.train.steps 3`: an override needs an equals sign."""
    for word, following in itertools.pairwise([*words, ""]):
        if word.startswith("--config.") and "=" not in word:
            value = "VALUE" if not following or following.startswith("-") else following
            raise UserError(f"{word}: expected an equals sign: {word}={value}")


def _check_known(unknown: Sequence[str], args: argparse.Namespace) -> None:
    """Raises a UserError that names the first unknown argument and the nearest flag."""
    if unknown:
        name = _flag(unknown[0])
        near = did_you_mean(name, args.flags) if name else ""
        raise UserError(f"{unknown[0]}: no such argument{near or _see_help(args.command)}")


def _flag(word: str) -> str:
    """The flag of a word such as "--name=value"; "" if it is none."""
    return word.partition("=")[0] if word.startswith("--") else ""


def _see_help(command: str) -> str:
    return f"; see ift {command} --help"


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, as every other mistake is."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message.removeprefix('argument ')}; see {self.prog} --help")


def _prepare_streams() -> None:
    r"""Makes every text printable.

    Python has no stream where the shell closed one (`>&-`): what goes there is discarded. A
    character that a stream's encoding lacks, such as in a locale of ASCII, becomes `\xe9`.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Sends the rest of the output nowhere, so that Python's exit does not fail to write it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser for all commands, with the flags of the command that `argv` names."""
    parser = _Parser(
        prog="ift",
        description="Instruction finetuning in JAX.",
        allow_abbrev=False,
        epilog="example: ift train --config configs/quickstart.py --workdir runs/quickstart",
    )
    parser.add_argument("--version", action="version", version=f"ift_jax {__version__}")
    parser.add_argument(_DEBUG, action="store_true", help=_DEBUG_HELP)
    parser.set_defaults(takes_further=lambda args: False)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    # Only the module of that command is imported: `ift --help` needs no JAX.
    named = next((word for word in argv if not word.startswith("-")), None)
    if named is not None and named not in COMMANDS:
        near = did_you_mean(named, COMMANDS)
        raise UserError(f"{named}: no such command{near or '; see ift --help'}")
    for name, text in COMMANDS.items():
        module = _module(name) if name == named else None
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
            subparser.add_argument(_DEBUG, action="store_true", help=_DEBUG_HELP)
            flags = set(re.findall(r"--[a-z][a-z-]*", subparser.format_help()))
            subparser.set_defaults(run=module.run, flags=sorted(flags))
    return parser


def _module(name: str) -> ModuleType:
    """The module of a command."""
    return importlib.import_module(f"ift_jax.commands.{name.replace('-', '_')}")


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + ("" if text.endswith("?") else ".")


def _examples(module: ModuleType) -> str:
    """A command's docstring after its first line."""
    return (module.__doc__ or "").partition("\n\n")[2]


if __name__ == "__main__":
    sys.exit(main())
