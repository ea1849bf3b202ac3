r"""`ift synthesize rejection`: rejection sampling.

For example:
  ift synthesize rejection --model runs/mine --prompts prompts.jsonl --reward number --output best
  ift synthesize rejection --model runs/mine --prompts prompts.jsonl --reward rewards.py:score \
    --output best --rounds 2 --train-control
  ift synthesize rejection --model runs/mine --prompts prompts.jsonl --reward-model /models/rm \
    --top 500 --output best

A prompt's row is one of `ift generate`, with the right answer where the reward compares with it. A
reward function takes (completion, row) and returns a number. A completion for which it raises an
exception, returns no finite number, or takes longer than --reward-timeout has no reward: a line
says so, the prompt is counted, the run goes on, and the exit status is 3.
SIGTERM or Ctrl-C ends it; the same command again continues.
"""

import argparse
import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ift_jax.commands import arguments, rejection_flags, run_config
from ift_jax.commands.synthesis_run import check_top_p
from ift_jax.errors import UserError, counted
from ift_jax.io.locks import output_lock
from ift_jax.io.outputs import check_folder
from ift_jax.io.paths import absolute, displayed
from ift_jax.io.stop_signals import StopSignals

if TYPE_CHECKING:
    from ift_jax.synthesis.generator import Completer
    from ift_jax.synthesis.rejection_plan import Plan
    from ift_jax.synthesis.rewards import Reward
    from ift_jax.synthesis.selected_rows import RoundResult

_REWARD_SECONDS = 10.0
FAILED_REWARDS = 3  # The exit status of a run that is complete, some of whose rewards failed.


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    rejection_flags.add_models(parser)
    rejection_flags.add_prompts(parser)
    rejection_flags.add_reward(parser)
    rejection_flags.add_sampling(parser)
    rejection_flags.add_selection(parser)
    rejection_flags.add_training(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns its status."""
    check_folder(args.output, "--output")
    args.model = args.model and absolute(args.model)
    trains = args.train or args.train_control or args.rounds > 1
    _check_models(args, trains)
    _check_reward_flags(args)
    if args.overrides and not trains:
        raise UserError(f"{args.overrides[0]}: expected --train or --rounds; nothing is trained")
    with output_lock(args.output, "--output"):
        return _run(args, trains)


def _check_models(args: argparse.Namespace, trains: bool) -> None:
    """Raises a UserError if the flags do not say which model answers, or which is trained."""
    if bool(args.endpoint) != bool(args.endpoint_model):
        raise UserError("--endpoint and --endpoint-model: expected both or none")
    if not args.model and (trains or not args.endpoint):
        what = "to train" if args.endpoint else "or --endpoint URL"
        raise UserError(f"--model: expected --model DIR {what}")
    if args.endpoint and args.rounds > 1:
        raise UserError(
            "--endpoint: its completions are those of a single round, as later rounds sample from "
            "the model that is trained; expected no --rounds"
        )


def _run(args: argparse.Namespace, trains: bool) -> int:
    from ift_jax.checkpoint.open_model import open_model_source
    from ift_jax.synthesis.rejection_rounds import Models, run_rounds

    plan = _plan(args)
    if args.model:
        open_model_source(args.model)  # Mistakes are found before any work.
    signals = StopSignals()
    with _reward(args, plan) as open_reward:
        models = Models(
            lambda model: _completer(args, model, signals),
            open_reward,
            (lambda data, workdir: _train(args, data, workdir)) if trains else None,
            args.train_control,
        )
        with signals:
            rounds = run_rounds(
                plan, args.output, args.rounds, args.model, models, stopped=signals.received
            )
    for result in rounds.results:
        print(*_described(result.summary), sep="\n")
    if not rounds.is_complete:
        print("stopped by a signal; the same command continues", file=sys.stderr)
        # Training handles signals itself, and ends without saying which one came.
        return signals.exit_status() or 128 + signal.SIGTERM
    print(*_next_lines(args, rounds.results[-1], trains), sep="\n")
    failed = sum(result.summary["failed_prompts"] for result in rounds.results)
    return FAILED_REWARDS if failed else 0


def _plan(args: argparse.Namespace) -> "Plan":
    """What the flags ask for; the rows are checked against the reward."""
    from ift_jax.synthesis.prompt_rows import read_prompt_rows
    from ift_jax.synthesis.rejection_plan import Plan

    if args.samples > 1 and args.temperature == 0:
        raise UserError(
            f"--samples: {args.samples} greedy completions would be the same; expected a "
            "--temperature above 0"
        )
    check_top_p(args.top_p, args.temperature)
    threshold = args.threshold
    if args.reward is not None:
        from ift_jax.synthesis.reward_functions import check_row

        spec = _function_spec(args)
        threshold = 1.0 if threshold is None and spec.is_verifier else threshold
    prompts = read_prompt_rows(args.prompts, args.prompt_field)
    if args.reward is not None:
        for prompt in prompts:
            check_row(spec, prompt.row, prompt.where)
    return Plan(
        prompts,
        args.samples,
        args.max_new_tokens,
        args.temperature,
        args.top_p,
        tuple(args.stop),
        args.seed,
        args.batch_size,
        args.top,
        threshold,
        args.keep_unfinished,
    )


def _function_spec(args: argparse.Namespace) -> Any:
    from ift_jax.synthesis.reward_functions import FunctionSpec

    return FunctionSpec(args.reward, args.answer_field)


def _check_reward_flags(args: argparse.Namespace) -> None:
    """Raises a UserError for a flag that the kind of reward has no use for."""
    of_kinds = {
        "--reward NAME": ("answer_field", "reward_timeout"),
        "--judge DIR": ("judge_question", "judge_answer"),
    }
    for kind, names in of_kinds.items():
        if getattr(args, kind.split()[0].strip("-")) is None:
            arguments.check_not_given(args, names, f"expected {kind}")


@contextlib.contextmanager
def _reward(args: argparse.Namespace, plan: "Plan") -> Iterator[Callable[[], "Reward"]]:
    """Yield what opens the reward; a function is loaded at once, a model when it is needed."""
    if args.reward is not None:
        from ift_jax.synthesis.reward_process import FunctionReward

        timeout = _REWARD_SECONDS if args.reward_timeout is None else args.reward_timeout
        if timeout <= 0:
            raise UserError(f"--reward-timeout: expected more than 0; got {timeout:g}")
        with contextlib.closing(FunctionReward(_function_spec(args), timeout)) as made:
            yield lambda: made
        return
    from ift_jax.checkpoint.open_model import open_model_source
    from ift_jax.checkpoint.reward_model_source import RewardModelSource
    from ift_jax.synthesis.model_rewards import Judge, RewardModel, check_question

    if args.reward_model is not None:
        source = RewardModelSource(absolute(args.reward_model))
        yield lambda: RewardModel(source, args.batch_size)
        return
    check_question(args.judge_question, args.judge_answer)
    judge = open_model_source(absolute(args.judge))
    yield lambda: Judge(judge, args.batch_size, args.judge_question, args.judge_answer)


def _completer(args: argparse.Namespace, model: str, signals: StopSignals) -> "Completer":
    if args.endpoint:
        from ift_jax.synthesis.endpoint import EndpointCompleter

        return EndpointCompleter(args.endpoint, args.endpoint_model, stopped=signals.received)
    from ift_jax.checkpoint.open_model import open_model_source
    from ift_jax.synthesis.own_decoder import DecoderCompleter

    return DecoderCompleter.open(open_model_source(model), args.batch_size, signals.received)


def _train(args: argparse.Namespace, data: str, workdir: str) -> bool:
    """Finetunes the starting model, or resumes that; returns whether the run is complete."""
    from ift_jax.checkpoint.run_description import RunRecord
    from ift_jax.training.console import Console
    from ift_jax.training.loop import train

    console = Console()
    of_run = argparse.Namespace(
        model=args.model, data=data, config="", lora=0, workdir=workdir, overrides=args.overrides
    )
    console.line(f"training on {displayed(data)} in {displayed(workdir)}")
    chosen = run_config.load(of_run, console.line)
    train(chosen.config, workdir, console, chosen.reasons)
    return RunRecord.read(workdir).finished_at is not None


def _described(summary: dict[str, Any]) -> list[str]:
    """The summary of a round as lines."""
    width = max(map(len, summary))
    lines = [f"round {summary['round']}:"]
    for name, value in summary.items():
        if name == "round" or value in ({}, None):
            continue
        shown = f"{value:.4g}" if isinstance(value, float) else value
        if isinstance(value, dict):
            shown = ", ".join(f"{counted(n, 'prompt')} {reason}" for reason, n in value.items())
        lines.append(f"  {name.replace('_', ' '):<{width}}  {shown}")
    return lines


def _next_lines(args: argparse.Namespace, result: "RoundResult", trains: bool) -> Iterator[str]:
    """The commands that come next."""
    from ift_jax.synthesis.rejection_rounds import MODEL

    yield "what next:"
    if trains:
        workdir = os.path.join(os.path.dirname(result.selected), MODEL)
        yield f"  ift eval --workdir {shlex.quote(displayed(workdir))}"
        return
    model = shlex.quote(displayed(args.model)) if args.model else "DIR"
    for rows, name in ((result.selected, "selected"), (result.control, "control")):
        workdir = shlex.quote(os.path.join("runs", name))
        data = shlex.quote(displayed(rows))
        yield f"  ift train --model {model} --data {data} --workdir {workdir}"
