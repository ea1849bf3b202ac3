r"""`ift synthesize magpie`: conversations of which a chat model writes both sides.

For example:
  ift synthesize magpie --model /models/SmolLM2-135M-Instruct --target 500 --output made.jsonl
  ift synthesize magpie --endpoint http://localhost:8000/v1 --endpoint-model mine --target 500 \
    --header '<|im_start|>user\n' --stop '<|im_end|>' --output made.jsonl

The prompt is what the model's chat template writes before a user's text, so the model writes a
user's text; then it answers that. An endpoint continues --header, in which \n is a line break.
A line of --output has "messages"; `ift train --data FILE` reads it.
SIGTERM or Ctrl-C ends it; an endpoint first finishes the answers that it has begun. The same
command again continues, and with a larger --target adds to the data set.
"""

import argparse
import dataclasses

from ift_jax.commands import synthesis_run
from ift_jax.errors import UserError
from ift_jax.io.stop_signals import StopSignals


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument(
        "--header",
        metavar="TEXT",
        help="the text that the model continues with a user's; default: what its chat template "
        "writes there",
    )
    parser.add_argument(
        "--stop",
        action="append",
        metavar="STRING",
        help="a text that ends a user's turn besides the model's own stop tokens; repeatable",
    )
    synthesis_run.add_model(parser)
    synthesis_run.add_rounds(parser, "conversations")
    synthesis_run.add_sampling(parser, "answer", temperature="1", top_p="1", max_tokens="512")


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns the status of a signal that stopped it."""
    from ift_jax.synthesis import magpie
    from ift_jax.synthesis.own_decoder import DecoderCompleter

    if args.header == "" or "" in (args.stop or ()):
        raise UserError("--header, --stop: expected a text that is not empty")
    if args.header is None and args.endpoint is not None:
        raise UserError("--endpoint: its chat template is not known; expected --header TEXT")
    values = synthesis_run.given(args, magpie.Settings)
    values["header"] = (args.header or "").replace("\\n", "\n")
    values["stop"] = tuple(args.stop or ())
    settings = magpie.Settings(**values)
    synthesis_run.check_settings(args, settings)
    signals = StopSignals()
    completer = synthesis_run.open_completer(args, signals)
    if args.header is None:
        assert isinstance(completer, DecoderCompleter)
        settings = dataclasses.replace(settings, header=completer.user_header())
    all_settings = {**dataclasses.asdict(settings), "stop": list(settings.stop)}
    return synthesis_run.run_recipe(args, magpie.Magpie(settings), completer, all_settings, signals)
