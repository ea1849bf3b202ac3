"""Flags and the course of a command that makes a data set round by round."""

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING, Any

from ift_jax.commands import arguments
from ift_jax.errors import UserError, counted
from ift_jax.io.outputs import file_output
from ift_jax.io.stop_signals import StopSignals

if TYPE_CHECKING:  # `ift synthesize KIND --help` needs no JAX.
    from ift_jax.synthesis.generator import Completer
    from ift_jax.synthesis.rounds import Recipe

_BATCH_SIZE = 32
_CONCURRENCY = 8


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that name the model that is asked."""
    group = parser.add_argument_group("the model")
    which = group.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--model",
        "--workdir",
        dest="workdir",
        type=arguments.absolute,
        metavar="DIR",
        help="a Hugging Face folder or the workdir of a run, decoded here",
    )
    which.add_argument(
        "--endpoint",
        metavar="URL",
        help="the address of an API like OpenAI's, such as http://localhost:8000/v1; "
        "OPENAI_API_KEY is sent if it is set",
    )
    group.add_argument(
        "--step",
        type=arguments.whole_number(0),
        metavar="N",
        help="with --model, the checkpoint of a run; default: the newest",
    )
    group.add_argument(
        "--batch-size",
        type=arguments.whole_number(1),
        metavar="N",
        help=f"with --model, rows that are decoded together; default: {_BATCH_SIZE}",
    )
    group.add_argument(
        "--endpoint-model", metavar="NAME", help="with --endpoint, the model's name there"
    )
    group.add_argument(
        "--concurrency",
        type=arguments.whole_number(1),
        metavar="N",
        help=f"with --endpoint, the number of concurrent requests; default: {_CONCURRENCY}",
    )


def add_rounds(parser: argparse.ArgumentParser, examples_of: str) -> None:
    """Adds the flags for the output and its size; `examples_of` says what an example is."""
    group = parser.add_argument_group("the data set")
    group.add_argument(
        "--output",
        required=True,
        type=arguments.local_path,
        metavar="FILE",
        help="the JSON lines to write or to continue; FILE.synthesis beside it has the counts, the "
        "rejected texts, and the model's answers",
    )
    group.add_argument(
        "--target",
        required=True,
        type=arguments.whole_number(1),
        metavar="N",
        help=f"the number of {examples_of} to reach; the last round is kept whole, so there may be "
        "more",
    )
    group.add_argument(
        "--max-rounds",
        type=arguments.whole_number(1),
        default=10_000,
        metavar="N",
        help="give up after this many rounds; default: 10,000",
    )
    group.add_argument(
        "--prompts-per-round",
        type=arguments.whole_number(1),
        default=32,
        metavar="N",
        help="prompts in a round; a prompt shows what earlier rounds kept; default: 32",
    )
    group.add_argument(
        "--similarity",
        type=arguments.number,
        default=0.7,
        metavar="F",
        help="an instruction with this ROUGE-L or more to a kept one is not new; default: 0.7",
    )
    group.add_argument(
        "--seed",
        type=arguments.whole_number(0),
        default=0,
        metavar="N",
        help="seed of every choice and of the sampling; default: 0",
    )


def add_sampling(
    parser: argparse.ArgumentParser, answers: str, *, temperature: str, top_p: str, max_tokens: str
) -> None:
    """Adds the flags that say how instructions and what comes after them are sampled.

    Args:
        parser: The parser.
        answers: What comes after instructions: "instance" or "answer".
        temperature: The default, as the help says it.
        top_p: The same.
        max_tokens: The same.
    """
    group = parser.add_argument_group("sampling")
    group.add_argument(
        "--temperature",
        type=arguments.number,
        metavar="F",
        help=f"sampling temperature of instructions; default: {temperature}",
    )
    group.add_argument(
        "--top-p",
        type=arguments.number,
        metavar="F",
        help="sample instructions from the most likely tokens with this total probability; "
        f"default: {top_p}",
    )
    group.add_argument(
        "--max-tokens",
        type=arguments.whole_number(1),
        metavar="N",
        help=f"the most tokens of a text with instructions; default: {max_tokens}",
    )
    group.add_argument(
        f"--{answers}-temperature",
        type=arguments.number,
        metavar="F",
        help=f"sampling temperature of {answers}s; default: 0, greedy",
    )
    group.add_argument(
        f"--max-{answers}-tokens",
        type=arguments.whole_number(1),
        metavar="N",
        help=f"the most tokens of a text with {answers}s; default: "
        f"{'350' if answers == 'instance' else '1,024'}",
    )
    group.add_argument(
        "--repetition-penalty",
        type=arguments.number,
        metavar="F",
        help="above 1, tokens that occurred already become less likely; 1 (default): no penalty",
    )


def given(args: argparse.Namespace, settings: type) -> dict[str, Any]:
    """Returns the values of the flags that are fields of a dataclass and were given."""
    names = [field.name for field in dataclasses.fields(settings)]
    values = {name: getattr(args, name, None) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def check_top_p(top_p: float, temperature: float) -> None:
    """Raises a UserError if `--top-p` was given and greedy decoding would not read it."""
    if top_p < 1 and temperature == 0:
        raise UserError(
            f"--top-p: {top_p:g} needs a --temperature above 0; at 0 the most likely token is "
            "always taken"
        )


def check_settings(args: argparse.Namespace, settings: Any) -> None:
    """Checks values that several kinds have, before any work.

    Args:
        args: The flags that the settings are from.
        settings: The settings of a kind.

    Raises:
        UserError: A value is out of its bounds, or nothing would read it; names its flag.
    """
    bounds = {
        "temperature": (0 <= settings.temperature <= 100, "0 to 100"),
        "top_p": (0 < settings.top_p <= 1, "more than 0 and at most 1"),
        "similarity": (0 < settings.similarity <= 1, "more than 0 and at most 1"),
        "repetition_penalty": (0 < settings.repetition_penalty <= 100, "more than 0, at most 100"),
    }
    for name in ("instance_temperature", "answer_temperature"):
        if hasattr(settings, name):
            bounds[name] = (0 <= getattr(settings, name) <= 100, "0 to 100")
    for name, (is_in, expected) in bounds.items():
        if not is_in:
            flag = f"--{name.replace('_', '-')}"
            raise UserError(f"{flag}: expected {expected}; got {getattr(settings, name):g}")
    if args.top_p is not None:
        check_top_p(args.top_p, settings.temperature)


def open_completer(args: argparse.Namespace, signals: StopSignals) -> "Completer":
    """Opens the model that the flags of `add_model` name; its weights are read when it is asked.

    Args:
        args: The flags.
        signals: Those that stop our own decoder before its next block of tokens, and an endpoint
            before its next request.

    Raises:
        UserError: There is none, or flags of the other kind of model were given.
    """
    if args.endpoint is not None:
        if not args.endpoint_model:
            raise UserError("--endpoint: expected --endpoint-model NAME beside it")
        of_model = ("step", "batch_size")
        arguments.check_not_given(args, of_model, "belongs to --model, not to --endpoint")
        from ift_jax.synthesis.endpoint import EndpointCompleter

        return EndpointCompleter(
            args.endpoint,
            args.endpoint_model,
            concurrency=args.concurrency or _CONCURRENCY,
            stopped=signals.received,
        )
    of_endpoint = ("endpoint_model", "concurrency")
    arguments.check_not_given(args, of_endpoint, "expected --endpoint URL beside it")
    from ift_jax.synthesis.own_decoder import DecoderCompleter

    return DecoderCompleter.open(
        arguments.open_model(args), args.batch_size or _BATCH_SIZE, signals.received
    )


def run_recipe(
    args: argparse.Namespace,
    recipe: "Recipe",
    completer: "Completer",
    settings: dict[str, Any],
    signals: StopSignals,
) -> int:
    """Makes the data set, and prints what became of everything that the model wrote.

    Args:
        args: Flags of `add_rounds`.
        recipe: How a round is made.
        completer: The model.
        settings: What determines the examples besides the model.
        signals: Those that stop the work.

    Returns:
        The exit status: 0, or that of a signal.
    """
    from ift_jax.synthesis.rounds import Outputs, synthesize

    outputs = Outputs(args.output)
    with file_output(args.output, "--output", appends=True):
        outputs.check_continuable()
        with signals:
            journaled = outputs.open_journal(completer, settings, signals.received)
            tally = synthesize(
                recipe,
                journaled,
                outputs,
                target=args.target,
                max_rounds=args.max_rounds,
                log=lambda line: print(line, file=sys.stderr, flush=True),
            )
    print(*tally.lines(), sep="\n")
    if tally.n_examples < args.target:
        print(
            f"stopped by a signal: {tally.n_examples:,} of {args.target:,} examples; the same "
            "command continues",
            file=sys.stderr,
        )
        return signals.exit_status()
    n_rounds = counted(tally.n_rounds, "round")
    print(f"{counted(tally.n_examples, 'example')} of {n_rounds} in {args.output}")
    return 0
