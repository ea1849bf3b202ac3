"""`ift compare --few-shot`: an untuned model in context against a tuned one."""

import argparse
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ift_jax.commands import arguments
from ift_jax.commands.eval import evaluated_config
from ift_jax.config.systems import SHOTS
from ift_jax.errors import UserError, counted, offered
from ift_jax.io.outputs import file_output, write_output
from ift_jax.io.stop_signals import StopSignals

if TYPE_CHECKING:
    from ift_jax.config.schema import Config

_SHOTS = tuple(k for k in SHOTS if k)  # The model is asked without examples in any case.


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of this part of the command."""
    group = parser.add_argument_group(
        "in context against tuned",
        "With --few-shot, one RUN, a tuned workdir, and the model that it began from answer the "
        "same questions.",
    )
    group.add_argument(
        "--few-shot",
        type=arguments.whole_number(1),
        choices=_SHOTS,
        metavar="K",
        help="solved examples before a question for the untuned model: "
        f"{', '.join(map(str, _SHOTS[:-1]))} or {_SHOTS[-1]}",
    )
    group.add_argument(
        "--untuned",
        metavar="DIR",
        help="the untuned model, a Hugging Face folder or a workdir; default: the run's "
        "model.init_from",
    )
    group.add_argument(
        "--which",
        choices=("eval", "heldout"),
        help="tasks that training never sees (heldout, default), or unseen examples of the trained "
        "ones",
    )
    group.add_argument(
        "--plot",
        type=arguments.local_path,
        metavar="FILE",
        help="where to write the plot, as SVG",
    )
    arguments.add_config(parser, required=False)


def check_not_asked(args: argparse.Namespace) -> None:
    """Raises a UserError if a flag is given that only --few-shot reads."""
    flags = ("untuned", "plot", "config", "which")
    given = {f"--{flag}": getattr(args, flag) for flag in flags}
    for flag, value in given.items():
        if value:
            raise UserError(f"{flag} {value}: expected --few-shot K beside it")
    if args.overrides:
        raise UserError(f"{args.overrides[0]}: expected --few-shot K beside it")


def run(args: argparse.Namespace) -> int:
    """Runs this part of the command; returns the status of a signal."""
    if len(args.runs) != 1:
        raise UserError("--few-shot: expected one RUN, the workdir of the tuned model")
    if len(args.metric) > 1:
        raise UserError("--few-shot: expected one --metric")
    args.which = args.which or "heldout"
    config = evaluated_config(args.config, args.runs[0], args.overrides, args.which, None)
    untuned = args.untuned or config.model.init_from
    if not untuned:
        raise UserError(
            f"{args.runs[0]}: began from no model; expected --untuned DIR, one to compare with"
        )
    _check_metric(config, args)
    with file_output(args.output, "--output"), file_output(args.plot, "--plot"):
        return _compare(args, config, untuned)


def _check_metric(config: "Config", args: argparse.Namespace) -> None:
    """Raises a UserError if no task will have the metric, as far as is known before its scores."""
    from ift_jax.evaluation.known_metrics import known_metrics

    for name in args.metric:
        known, _ = known_metrics(config, args.which)
        if known and name not in known:
            hint = offered(name, known)
            raise UserError(f"--metric {name}: no task of {args.which!r} has it{hint}")


def _compare(args: argparse.Namespace, config: "Config", untuned: str) -> int:
    from ift_jax.checkpoint.open_model import open_model_source
    from ift_jax.evaluation.finished_batches import remove_unfinished
    from ift_jax.evaluation.in_context import answer_in_three_ways, compared
    from ift_jax.evaluation.metric_values import json_text
    from ift_jax.io.text_tables import output_width
    from ift_jax.report import in_context
    from ift_jax.report.plots import standalone

    def told(name: str, result: Mapping[str, Any]) -> None:
        n_answers = counted(len(result["answers"]), "answer")
        print(f"{name}: {n_answers}" + ("" if result["complete"] else ", stopped by a signal"))

    signals = StopSignals()
    models = open_model_source(args.runs[0]), open_model_source(untuned)
    ways = answer_in_three_ways(
        config, *models, args.which, args.few_shot, signals, args.output, told
    )
    if not ways[-1].result["complete"]:
        if args.output:
            print("the same command continues", file=sys.stderr)
        return signals.exit_status()
    metric = args.metric[0] if args.metric else ""
    found = compared(ways, metric, args.seed)
    print(*in_context.lines(ways, found, output_width()), sep="\n")
    if args.output:
        content = {
            "ways": [way.name for way in ways],
            "scores": [line.as_json() for line in found],
            "results": {way.name: way.result for way in ways},
        }
        write_output(args.output, json_text(content).encode())
        remove_unfinished(args.output)
    if args.plot:
        write_output(args.plot, standalone(in_context.plot(ways, found)).encode())
    return 0
