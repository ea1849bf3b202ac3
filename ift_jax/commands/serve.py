"""`ift serve`.

For example:
  ift serve --workdir runs/quickstart
  ift serve --model /models/SmolLM2-135M-Instruct --port 8080

It needs the extra `serve`. The API is like OpenAI's: /v1/completions, /v1/chat/completions,
/v1/models, and /health; docs/serving.md lists the fields. On SIGTERM or Ctrl-C, it finishes
the answers that were asked for, and exits with 0.
"""

import argparse
import os
import sys

from ift_jax.commands import arguments
from ift_jax.errors import UserError, counted
from ift_jax.io.stop_signals import StopSignals

_LONGEST_TIMEOUT = 7 * 24 * 3600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    count = arguments.whole_number(1)
    arguments.add_model(parser, "--model")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="the address to listen on; default: 127.0.0.1, which only this machine reaches; "
        "there is no authentication",
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=8000,
        metavar="N",
        help="the port; 0: a free one, which is printed; default: 8000",
    )
    parser.add_argument(
        "--name", metavar="TEXT", help="what requests call the model; default: its folder's name"
    )
    parser.add_argument(
        "--batch-size",
        type=count,
        default=16,
        metavar="N",
        help="rows that are decoded together, one for each answer; default: 16",
    )
    parser.add_argument(
        "--queue-size",
        type=count,
        default=256,
        metavar="N",
        help="the most prompts that wait; more are refused with status 429; default: 256",
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=600.0,
        metavar="SECONDS",
        help="time limit of a request; default: 600",
    )
    parser.add_argument(
        "--max-length",
        type=count,
        default=0,
        metavar="N",
        help="the most tokens of a prompt with its answer (of an encoder-decoder: of each); "
        "default: what the model was made for or trained on",
    )
    parser.add_argument(
        "--max-new-tokens",
        type=count,
        default=512,
        metavar="N",
        help="the most tokens of a chat's answer if the request does not say; default: 512",
    )
    parser.add_argument(
        "--seed",
        type=arguments.whole_number(0),
        default=0,
        metavar="N",
        help="seeds the sampling of requests without a seed, with their number; default: 0",
    )


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    try:
        from ift_jax.serving import http_server
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise UserError(
            f"ift serve needs {error.name}, which is not installed; run launch/setup.sh serve"
        ) from None
    from ift_jax.evaluation.text_generator import describe_text_generator, load_generator
    from ift_jax.serving.answer_queue import AnswerQueue
    from ift_jax.serving.served_model import ServedModel

    # The address comes before the weights: a port that is taken is told at once.
    opened = http_server.open_socket(args.host, args.port, args.timeout)
    source = arguments.open_model(args)
    text_generator = describe_text_generator(source)
    name = args.name or os.path.basename(args.workdir.rstrip("/"))
    model = ServedModel(
        name,
        text_generator,
        load_generator(source, text_generator),
        max_answers=args.batch_size,
        max_prompts=args.queue_size,
        max_length=args.max_length,
        chat_tokens=args.max_new_tokens,
        seed=args.seed,
    )
    queue = AnswerQueue(model.generator, max_waiting=args.queue_size, batch_size=args.batch_size)
    server = http_server.HttpServer(model, queue, opened, timeout=args.timeout)
    with StopSignals() as signals, server:
        n_params = model.text_generator.model.n_params
        print(
            f"serving {name!r} ({n_params:,} parameters, {model.max_prompt:,} tokens) at "
            f"{server.address}",
            flush=True,
        )
        server.wait(signals)
        n_left = queue.n_waiting + queue.n_running
        print(f"stopping: {counted(n_left, 'prompt')} to finish", file=sys.stderr, flush=True)


def _port(text: str) -> int:
    """The type of --port."""
    port = arguments.whole_number(0)(text)
    if port > 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535; got {text[:80]!r}")
    return port


def _seconds(text: str) -> float:
    """The type of --timeout."""
    seconds = arguments.number(text)
    if not 0 < seconds <= _LONGEST_TIMEOUT:
        raise argparse.ArgumentTypeError(
            f"expected seconds, more than 0 and at most {_LONGEST_TIMEOUT}; got {text[:80]!r}"
        )
    return seconds
