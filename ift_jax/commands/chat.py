"""`ift chat`.

For example:
  ift chat --workdir runs/quickstart
  ift chat --workdir runs/quickstart --system "Answer in one word." --temperature 0.7 --top-p 0.9

/help lists the commands that can be typed besides messages. Through a pipe, each line is a message,
and only the answers are written to standard output.
"""

import argparse
import contextlib
import functools
import sys

from ift_jax.commands import arguments
from ift_jax.errors import UserError

_DEFAULT_NEW_TOKENS = 512


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    arguments.add_model(parser)
    parser.add_argument("--system", default="", metavar="TEXT", help="the system message")
    parser.add_argument(
        "--max-new-tokens",
        type=arguments.whole_number(1),
        metavar="N",
        help="the most tokens of an answer; default: 512, or half of what the model can read if "
        "that is less",
    )
    arguments.add_generation(parser)


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    from ift_jax.evaluation.chat import Chat, converse, token_limits
    from ift_jax.evaluation.text_generator import describe_text_generator, load_generator

    arguments.generation_options(args, args.max_new_tokens or 1)  # Mistakes come before loading.
    source = arguments.open_model(args)
    text_generator = describe_text_generator(source, args.stop)
    generator = load_generator(source, text_generator)
    limits = token_limits(text_generator)
    max_new_tokens = args.max_new_tokens
    if max_new_tokens is None:
        max_new_tokens = min(_DEFAULT_NEW_TOKENS, limits.total // 2, limits.answer)
    options = arguments.generation_options(args, max_new_tokens)
    if max_new_tokens > limits.answer:
        raise UserError(
            f"--max-new-tokens {max_new_tokens}: the model has room for at most {limits.answer}"
        )

    note = functools.partial(print, file=sys.stderr, flush=True)  # For all that is no answer.
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if terminal:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # Gives input() editing and a history.
        n_params = text_generator.model.n_params
        note(f"{n_params:,} parameters, {limits.total:,} tokens; /help for commands")

    def read() -> str:
        try:
            return input("> " if terminal else "")
        except UnicodeDecodeError as error:
            raise UserError(f"standard input: expected UTF-8: {error}") from error

    chat = Chat(text_generator, generator, options, system=args.system, note=note)
    converse(chat, read, functools.partial(print, end="", flush=True), note)
