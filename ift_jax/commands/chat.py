"""`ift chat`.

For example:
  ift chat --workdir runs/quickstart
  ift chat --workdir runs/quickstart --system "Answer in one word." --temperature 0.7 --top-p 0.9

/help lists what can be typed beside messages. Through a pipe, each line is a message, and the
answers alone are written to standard output.
"""

import argparse
import contextlib
import functools
import sys

from ift_jax.commands import arguments
from ift_jax.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    arguments.add_model(parser)
    parser.add_argument("--system", default="", metavar="TEXT", help="the system message")
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        metavar="N",
        help="of an answer; default: 512, or half of what the model can read if that is less",
    )
    arguments.add_generation(parser)


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    from ift_jax.evaluation.chat import Chat, converse, room
    from ift_jax.evaluation.text_generator import open_text_generator

    note = functools.partial(print, file=sys.stderr, flush=True)  # What is no answer.
    arguments.generation_options(args, args.max_new_tokens or 1)  # Mistakes first.
    text_generator, generator = open_text_generator(args.workdir, args.step, args.stop)
    longest, of_answer = room(text_generator)
    n_new = min(512, longest // 2, of_answer)
    n_new = n_new if args.max_new_tokens is None else args.max_new_tokens
    options = arguments.generation_options(args, n_new)
    if n_new > of_answer:
        raise UserError(f"--max-new-tokens {n_new}: the model has room for {of_answer} at the most")
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if terminal:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # Editing and history in input().
        note(
            f"{text_generator.model.n_params:,} parameters, {longest:,} tokens; /help for commands"
        )

    def read() -> str:
        try:
            return input("> " if terminal else "")
        except UnicodeDecodeError as error:
            raise UserError(f"standard input: expected UTF-8: {error}") from error

    chat = Chat(text_generator, generator, options, system=args.system, note=note)
    converse(chat, read, functools.partial(print, end="", flush=True), note)
