r"""`ift sweep`.

For example:
  ift sweep --config configs/quickstart.py --workdir runs/rates \
    --grid optimizer.learning_rate=1e-3,3e-3 --seeds 0,1,2
  ift sweep --config configs/quickstart.py --workdir runs/tasks --sweep sweep.yaml
  ift sweep --model /models/SmolLM2-135M-Instruct --data chats.jsonl --workdir runs/lengths \
    --grid data.max_examples_per_task=100,1000 --config.train.epochs=1

The runs are done one after another, each in a folder of the workdir that is named after what it
sets. The same command resumes a sweep that was stopped, and skips what is done; so does one with
more values. A run that fails is named in a line, the others are done, and the exit status is 2.
A --sweep file is YAML or JSON (fields with lists of values, of which every combination is run, as
axolotl's and wandb's grids, or a list of runs), or Python with get_sweep() that returns the same.
"""

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ift_jax.commands import arguments, run_config
from ift_jax.commands.failures import USER_ERROR
from ift_jax.config import data_items
from ift_jax.config import files as config_files
from ift_jax.errors import UserError, offered
from ift_jax.io.folders import write_files
from ift_jax.io.outputs import check_workdir
from ift_jax.io.paths import displayed
from ift_jax.io.stop_signals import StopSignals

if TYPE_CHECKING:  # `ift sweep --help` needs no JAX.
    from ift_jax.sweep.runs import Outcome, Planned
    from ift_jax.sweep.settings import Setting


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    arguments.add_config(parser, required=False)
    run_config.add_model_and_data(parser)
    parser.add_argument(
        "--workdir",
        required=True,
        type=arguments.local_path,
        metavar="DIR",
        help="the folder of the sweep, on this machine, which holds those of its runs",
    )
    parser.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="FIELD=VALUES",
        help="a field of the config and its values with commas between; repeatable: every "
        "combination is run",
    )
    parser.add_argument(
        "--seeds",
        metavar="SEEDS",
        help="seeds of each setting with commas between, such as 0,1,2; they replace "
        "those of a --sweep file",
    )
    parser.add_argument(
        "--sweep",
        metavar="FILE",
        help="a file that lists the runs instead of --grid: YAML, JSON, or Python",
    )
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="NAME",
        help="a metric of the table and the plot, such as heldout/exact_match, eval_loss, or "
        "seconds; repeatable; default: exact match, accuracy, and the score of the most common "
        "answer, or the losses of runs that score no answers",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check all configs and list the runs; train none"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns 2 if a run failed, or the status of a signal."""
    from ift_jax.sweep.runs import DoneRuns, run_all, train_process

    check_workdir(args.workdir)
    runs = _planned(args)
    if args.dry_run:
        done = DoneRuns(args.workdir)
        for each in runs:
            print(each.workdir, *each.setting.overrides, *(["(done)"] if each in done else []))
        return 0
    os.makedirs(args.workdir, exist_ok=True)
    signals = StopSignals()
    with signals:
        outcomes = run_all(args.workdir, runs, train_process, print, signals)
    _report(args, outcomes)
    if signals.received():
        return signals.exit_status()
    return 0 if all(outcome.is_done for outcome in outcomes) else USER_ERROR


def _settings(args: argparse.Namespace) -> "list[Setting]":
    """The runs that the flags, or a file, ask for."""
    from ift_jax.sweep.settings import (
        SEED,
        grid,
        parse_grid,
        parse_seeds,
        read_settings,
        with_seeds,
    )

    given = parse_grid(args.grid)
    seeds = [] if args.seeds is None else parse_seeds(args.seeds)
    if seeds and SEED in given:
        raise UserError(f"--seeds, --grid {SEED}=: expected one of the two")
    if args.sweep:
        if given:
            raise UserError("--sweep, --grid: expected one of the two")
        settings = read_settings(args.sweep)
        return with_seeds(settings, seeds, args.sweep) if seeds else settings
    if not given and not seeds:
        raise UserError(
            "expected --grid FIELD=VALUES, --seeds SEEDS, or --sweep FILE: what differs between "
            "the runs"
        )
    flags = [*(["--grid"] if given else []), *(["--seeds"] if seeds else [])]
    return grid({**given, **({SEED: seeds} if seeds else {})}, ", ".join(flags))


def _planned(args: argparse.Namespace) -> "list[Planned]":
    """The runs that the flags ask for, each with the words of its command, once all are checked.

    Raises:
        UserError: A config is wrong; names the run. Or no run will have a metric of `--metric`.
    """
    from ift_jax.config.checks import check_given
    from ift_jax.sweep.metric_check import check_metrics
    from ift_jax.sweep.runs import Planned

    of_base = []
    for flag in ("config", "model", "data", "lora"):
        if value := getattr(args, flag):
            of_base += [f"--{flag}", str(value)]
    runs, configs = [], []
    for setting in _settings(args):
        overrides = [*args.overrides, *setting.overrides]
        of_run = argparse.Namespace(**{**vars(args), "overrides": overrides, "workdir": ""})
        words = [*of_base, *overrides]
        try:
            # What --model and --data choose depends on the devices, which are the runs' to use.
            is_chosen = run_config.chooses(of_run)
            if is_chosen:
                config = run_config.given(of_run)
                check_given(config)
                data_items.parse(config.data.root)
            else:
                config = run_config.load(of_run, weights=False).config
        except UserError as error:
            raise UserError(f"run {setting.folder}: {error}") from error
        asks: Any = words if is_chosen else config_files.to_json(config)
        runs.append(Planned(setting, os.path.join(args.workdir, setting.folder), words, asks))
        configs.append(config)
    check_metrics(args.metric, configs)
    return runs


def _report(args: argparse.Namespace, outcomes: "Sequence[Outcome]") -> None:
    """Prints the table, and writes the results as JSON, plots and a page."""
    from ift_jax.evaluation.metric_values import json_text
    from ift_jax.io.text_tables import output_width
    from ift_jax.report.plots import standalone
    from ift_jax.sweep import page
    from ift_jax.sweep.results import read_scores, shown_metrics, summarized

    done = [outcome.run for outcome in outcomes if outcome.is_done]
    settings = summarized([read_scores(each.setting, each.workdir) for each in done])
    known = sorted({metric for each in settings for metric in each.means})
    metrics = [name for name in args.metric if name in known] or shown_metrics(settings)
    print(*page.lines(settings, metrics, output_width()), sep="\n")
    failed = [
        f"{outcome.run.setting.folder}: {outcome.message}"
        for outcome in outcomes
        if outcome.status == "failed"
    ]
    print(*(f"failed: {line}" for line in failed), sep="\n", end="\n" if failed else "")
    results = {"settings": [each.as_json() for each in settings], "failed": failed}
    files = {"sweep.json": json_text(results).encode()}
    name = os.path.basename(args.workdir)
    files["sweep.html"] = page.sweep_page(name, settings, metrics, failed).encode()
    for number, svg in enumerate(page.plot(settings, metrics) if settings else ()):
        files[f"sweep{number or ''}.svg"] = standalone(svg).encode()
    write_files(args.workdir, files)
    print("results:", *(displayed(os.path.join(args.workdir, name)) for name in files))
    for name in args.metric if settings else ():
        if name not in known:
            raise UserError(f"--metric {name}: no run has it{offered(name, known)}")
