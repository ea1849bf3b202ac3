r"""`ift eval`.

For example:
  ift eval --workdir runs/quickstart
  ift eval --config configs/quickstart.py --workdir runs/quickstart --which heldout \
    --output heldout.json --config.evaluation.examples=50
  ift eval --config configs/smollm2_135m.py --workdir runs/tuned --which heldout \
    --untuned runs/smollm2_135m_instruct --shots 5
  ift eval --benchmarks gsm8k,ifeval,bbh:navigate --benchmark-data data \
    --model runs/smollm2_135m_instruct

SIGTERM or Ctrl-C ends it within a second or so; --output and --answers then have the answers so
far, and the same command continues from there.
Without --config the run's own config says what is evaluated. The model's own tokenizer is used. A
metric that cannot be computed is named, and the exit status is 2; all others are reported
nonetheless.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from typing import Any

from ift_jax.commands import arguments, eval_benchmarks
from ift_jax.commands.failures import USER_ERROR
from ift_jax.config.files import overridden
from ift_jax.config.schema import Config
from ift_jax.config.systems import SHOTS
from ift_jax.errors import UserError, counted
from ift_jax.io.outputs import file_output, write_output
from ift_jax.io.stop_signals import StopSignals

_SPLIT_FIELDS = {"train": "split", "eval": "eval_split", "heldout": "heldout_split"}
_SHOTS = 5  # In a prompt of the untuned model.
_EXAMPLES = 100  # A task, where the run's own config evaluates nothing.


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    arguments.add_config(parser, required=False)
    arguments.add_stage(parser)
    arguments.add_model(parser, "--model")
    parser.add_argument(
        "--which",
        choices=("eval", "heldout", "train"),
        default="eval",
        help="unseen examples of trained tasks (eval, default), tasks that training never sees, or "
        "the examples that are trained on",
    )
    parser.add_argument(
        "--split",
        metavar="NAME",
        help="the split of that mixture, instead of the one that the config names",
    )
    parser.add_argument(
        "--output",
        type=arguments.local_path,
        metavar="FILE",
        help="where to write scores and answers as JSON; with --benchmarks, a folder",
    )
    parser.add_argument(
        "--answers",
        type=arguments.local_path,
        metavar="FILE",
        help="where to write the answers as JSON lines, with the scores of each",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="print the scores of every task, however many; otherwise many are summarized",
    )
    parser.add_argument(
        "--track",
        metavar="NAMES",
        default="",
        help="send the scores to the run's trackers, at the step of the checkpoint: tensorboard, "
        "wandb, mlflow, trackio, or several with commas",
    )
    parser.add_argument(
        "--untuned",
        metavar="DIR",
        help="a model to compare with, such as the one that the run began from; its prompts begin "
        "with --shots solved examples",
    )
    parser.add_argument(
        "--shots",
        type=arguments.whole_number(1),
        choices=tuple(k for k in SHOTS if k),
        help=f"solved examples in a prompt of the untuned model; default: {_SHOTS}",
    )
    eval_benchmarks.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns 2 if a metric could not be computed, or the status of a signal."""
    if eval_benchmarks.asked_for(args):
        return eval_benchmarks.run(args)
    if args.stage and not args.config:
        raise UserError(f"--stage {args.stage}: expected --config FILE with stages beside it")
    if args.shots and not args.untuned:
        raise UserError(f"--shots {args.shots}: expected --untuned DIR, whose prompts have them")
    args.shots = args.shots or _SHOTS
    config = evaluated_config(
        args.config, args.workdir, args.overrides, args.which, args.split, args.stage
    )
    if args.untuned and args.which == "train":
        raise UserError("--which train: --untuned compares on examples that are not trained on")
    with file_output(args.output, "--output"), file_output(args.answers, "--answers"):
        return _evaluate(args, config)


def evaluated_config(
    file: str | None,
    workdir: str,
    overrides: Sequence[str],
    which: str,
    split: str | None,
    stage: str = "",
) -> Config:
    """The config that says what is evaluated, and how.

    Args:
        file: A config file; None or "" for the config of the run in the workdir.
        workdir: The model's.
        overrides: Items of the form "--config.section.field=value".
        which: A mixture of the config, one of `_SPLIT_FIELDS`.
        split: Another split of it; None or "" for the config's.
        stage: The stage of a config file that has stages.

    Raises:
        UserError: The config is wrong, or evaluates no example.
    """
    if file:
        args = argparse.Namespace(config=file, overrides=list(overrides), stage=stage)
        config = arguments.load_config(args)
    else:
        config = _own_config(workdir, overrides)
    if config.evaluation.examples < 1:
        raise UserError(
            "config.evaluation.examples: expected at least 1 to evaluate, as in "
            "--config.evaluation.examples=100"
        )
    if not split:
        return config
    of_split: dict[str, Any] = {_SPLIT_FIELDS[which]: split}
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **of_split))


def _evaluate(args: argparse.Namespace, config: Config) -> int:
    """Evaluates one model or two; returns 2 if a metric could not be computed."""
    from ift_jax.checkpoint.open_model import open_model_source
    from ift_jax.evaluation.evaluate_model import evaluate_model
    from ift_jax.evaluation.few_shot_config import few_shot_config
    from ift_jax.evaluation.finished_batches import remove_unfinished
    from ift_jax.evaluation.metric_values import json_lines, json_text
    from ift_jax.evaluation.score_table import table

    trackers = [name for name in args.track.split(",") if name]
    if trackers:
        from ift_jax.training.track_evaluation import check_tracking, track_evaluation

        check_tracking(trackers, args.workdir)
    signals = StopSignals()
    unfinished = _file_to_continue(args)

    def write_and_show(title: str, part: dict[str, Any]) -> None:
        if args.output:
            write_output(args.output, json_text(result).encode())
        if args.answers:
            write_output(args.answers, json_lines(result["answers"]))
        if part["complete"]:
            print(*table(title, part, list_all=args.all), sep="\n")
        else:
            written = args.answers or args.output
            where = f"; they are in {written}" if written else ""
            n_answers = counted(len(part["answers"]), "answer")
            print(f"stopped by a signal: {n_answers}, not scored{where}", file=sys.stderr)

    source = arguments.open_model(args)
    result = evaluate_model(config, source, args.which, signals, unfinished)
    write_and_show(f"{args.which}, step {result['step']}", result)
    if trackers and result["complete"]:
        track_evaluation(trackers, args.workdir, config, args.which, result)
    if not result["complete"] or (args.untuned and signals.received()):
        return signals.exit_status()
    if args.untuned:
        untuned = open_model_source(args.untuned)
        tokenizer = untuned.tokenizer_config or config.tokenizer
        few_shot = few_shot_config(config, untuned.config, tokenizer, args.which, args.shots)
        result["untuned"] = evaluate_model(few_shot, untuned, args.which, signals, unfinished)
        write_and_show(f"untuned, {args.shots}-shot: {untuned.path}", result["untuned"])
        if not result["untuned"]["complete"]:
            return signals.exit_status()
    if unfinished:
        remove_unfinished(unfinished)
    failures = [*result["failures"], *result.get("untuned", {}).get("failures", ())]
    if args.debug:
        print(*(failure["traceback"] for failure in failures), sep="\n", end="", file=sys.stderr)
    return USER_ERROR if failures else 0


def _file_to_continue(args: argparse.Namespace) -> str | None:
    """The output beside which unfinished answers are kept; None if there is no regular file."""
    for path in (args.answers, args.output):
        if path and (os.path.isfile(path) or not os.path.exists(path)):
            return str(path)
    return None


def _own_config(workdir: str, overrides: Sequence[str]) -> Config:
    """The config of the run in the workdir; if it evaluates nothing itself, `_EXAMPLES` a task."""
    from ift_jax.checkpoint.run_description import own_config

    config = arguments.completed(own_config(workdir, overrides), weights=False)
    if config.evaluation.examples or "evaluation.examples" in overridden(overrides):
        return config
    evaluation = dataclasses.replace(config.evaluation, examples=_EXAMPLES)
    return dataclasses.replace(config, evaluation=evaluation)
