"""`ift eval --benchmarks`: published evaluation sets from local files."""

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from ift_jax.commands import arguments
from ift_jax.errors import UserError
from ift_jax.io.locks import output_lock
from ift_jax.io.outputs import check_folder
from ift_jax.io.paths import is_remote
from ift_jax.io.stop_signals import StopSignals

if TYPE_CHECKING:
    from ift_jax.checkpoint.model_source import ModelSource
    from ift_jax.evaluation.benchmarks.answering import Model
    from ift_jax.evaluation.benchmarks.run_benchmarks import Settings

RESULTS_FILE = "results.json"
BENCHMARKS_FOLDER = "benchmarks"  # The folder's name in a run's workdir.
_DEFAULTS = {
    "benchmark_data": None,
    "limit": 0,
    "few_shot": None,
    "prompt_style": "chat",
    "few_shot_as_turns": False,
    "batch_size": 16,
    "max_new_tokens": 0,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `--benchmarks`."""
    group = parser.add_argument_group("benchmarks")
    group.add_argument(
        "--benchmarks",
        metavar="NAMES",
        help="published sets instead of a config's examples, such as gsm8k,ifeval,bbh:navigate, of "
        "gsm8k, bbh, mmlu, arc_easy, arc_challenge, hellaswag, ifeval, mt_bench, alpaca_eval, "
        "humaneval; NAME:TASK+TASK for some tasks of one",
    )
    group.add_argument(
        "--benchmark-data",
        type=arguments.local_path,
        metavar="DIR",
        help="the folder with their files, such as DIR/gsm8k/test.jsonl; a missing one is named",
    )
    group.add_argument(
        "--limit",
        type=arguments.whole_number(1),
        default=_DEFAULTS["limit"],
        metavar="N",
        help="only the first N problems of each benchmark, or of each of its tasks",
    )
    group.add_argument(
        "--few-shot",
        type=arguments.whole_number(0),
        metavar="N",
        help="solved examples in a prompt; default: gsm8k 8, mmlu 5, bbh 3, others 0",
    )
    group.add_argument(
        "--prompt-style",
        choices=("chat", "plain"),
        default=_DEFAULTS["prompt_style"],
        help="the user's turn in the model's own format (chat, default), or plain text, as a base "
        "model reads it",
    )
    group.add_argument(
        "--few-shot-as-turns",
        action="store_true",
        help="each solved example as a turn of the user and one of the assistant",
    )
    group.add_argument(
        "--batch-size",
        type=arguments.whole_number(1),
        default=_DEFAULTS["batch_size"],
        metavar="N",
        help="prompts that are answered together; default: 16",
    )
    group.add_argument(
        "--max-new-tokens",
        type=arguments.whole_number(1),
        default=_DEFAULTS["max_new_tokens"],
        metavar="N",
        help="the most tokens of an answer; default: each benchmark's own, such as 1280 for ifeval",
    )


def asked_for(args: argparse.Namespace) -> bool:
    """Returns whether benchmarks are to be run.

    Raises:
        UserError: A flag of benchmarks is given without them, or they with one of other flags.
    """
    if args.benchmarks is None:
        for name, default in _DEFAULTS.items():
            if getattr(args, name) != default:
                flag = "--" + name.replace("_", "-")
                raise UserError(f"{flag}: is for --benchmarks, which is not given")
        return False
    others = {
        "--config": args.config or args.overrides,
        "--stage": args.stage,
        "--which": args.which != "eval",
        "--split": args.split,
        "--answers": args.answers,
        "--track": args.track,
        "--untuned": args.untuned,
        "--shots": args.shots,
        "--all": args.all,
    }
    for flag, given in others.items():
        if given:
            raise UserError(f"{flag}: is not for --benchmarks, which have flags of their own")
    if args.benchmark_data is None:
        raise UserError("--benchmarks: expected --benchmark-data DIR, the folder with their files")
    if args.few_shot_as_turns and args.prompt_style == "plain":
        raise UserError("--few-shot-as-turns: plain text has no turns; expected chat")
    return True


def run(args: argparse.Namespace) -> int:
    """Runs the benchmarks; returns the status of a signal that stopped them."""
    from ift_jax.evaluation.benchmarks.prompt_encoder import PromptStyle
    from ift_jax.evaluation.benchmarks.registry import choose
    from ift_jax.evaluation.benchmarks.run_benchmarks import Settings, prepare

    settings = Settings(
        style=PromptStyle(args.prompt_style == "chat", args.few_shot_as_turns),
        shots=args.few_shot,
        limit=args.limit,
        max_new_tokens=args.max_new_tokens,
        batch_size=args.batch_size,
    )
    source = arguments.open_model(args)
    folder = _output_folder(args, source)
    check_folder(folder, "--output")
    # All files are read before the weights are.
    prepared = prepare(choose(args.benchmarks), args.benchmark_data, settings)
    with output_lock(folder, "--output"):
        return _run_all(args, settings, source, prepared, folder)


def _output_folder(args: argparse.Namespace, source: "ModelSource") -> str:
    """The folder of `--output`; by default beside a run's files, or one named after a model."""
    from ift_jax.checkpoint.open_model import WorkdirSource

    if args.output:
        return args.output
    if is_remote(args.workdir):
        raise UserError(f"--workdir {args.workdir}: expected --output, a local folder for answers")
    if isinstance(source, WorkdirSource):
        return os.path.join(args.workdir, BENCHMARKS_FOLDER)
    return os.path.abspath(f"{_model_name(args.workdir)}.benchmarks")


def _model_name(path: str) -> str:
    return os.path.basename(os.path.abspath(path)).removesuffix(".gguf")


def _run_all(
    args: argparse.Namespace,
    settings: "Settings",
    source: "ModelSource",
    prepared: Any,
    folder: str,
) -> int:
    """Loads the model, runs one benchmark after the other, and writes and prints the results."""
    import jax

    from ift_jax.evaluation.benchmarks.results_table import results_table
    from ift_jax.evaluation.benchmarks.run_benchmarks import run_benchmark
    from ift_jax.evaluation.metric_values import json_text
    from ift_jax.io.outputs import write_output
    from ift_jax.report.report import renew_report
    from ift_jax.report.run_files import REPORT_FILE

    model = _load(source)
    name = _model_name(args.workdir)
    results: dict[str, Any] = {}
    signals = StopSignals()
    mesh = jax.tree.leaves(model.params)[0].sharding.mesh
    print(f"answers and results: {folder}")
    with jax.set_mesh(mesh), signals:
        for one in prepared:
            benchmark = one.chosen.benchmark.name
            result = run_benchmark(
                one, model, settings, folder, model_name=name, stopped=signals.received
            )
            if not result["complete"]:
                line = f"{result['answered']} answers to {result['examples']} problems"
                print(
                    f"stopped by a signal: {benchmark}: {line}; the same command continues",
                    file=sys.stderr,
                )
                return signals.exit_status()
            results[benchmark] = result
            described = {
                "model": args.workdir,
                "step": source.step,
                "prompt_style": args.prompt_style,
                "few_shot_as_turns": args.few_shot_as_turns,
                "benchmarks": results,
            }
            write_output(os.path.join(folder, RESULTS_FILE), json_text(described).encode())
            title = f"{benchmark}, {args.prompt_style} prompts, {name}, step {source.step}"
            print(*results_table(title, {benchmark: result}), sep="\n", flush=True)
    if folder == os.path.join(args.workdir, BENCHMARKS_FOLDER) and renew_report(args.workdir):
        print(f"report: {os.path.join(args.workdir, REPORT_FILE)}")
    return 0


def _load(source: "ModelSource") -> "Model":
    """Reads the weights, and lays them out for decoding besides."""
    import jax

    from ift_jax.checkpoint.load_model import load_model
    from ift_jax.evaluation.benchmarks.answering import Model
    from ift_jax.evaluation.text_generator import TextGenerator

    loaded = load_model(source)
    if loaded.config.train.compile_cache:
        jax.config.update("jax_compilation_cache_dir", loaded.config.train.compile_cache)
    text_generator = TextGenerator(loaded.config, loaded.tokenizer, loaded.model)
    return Model(text_generator, loaded.params, text_generator.generator(loaded.params))
