"""Training and its data from Python: what `ift train`, `ift inspect` and `ift eval` do."""

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ift_jax.errors import UserError
from ift_jax.io.paths import absolute

if TYPE_CHECKING:
    from ift_jax.checkpoint.model_source import StepChoice


def train(
    model: str = "",
    data: str = "",
    *,
    workdir: str,
    config: str = "",
    lora: int = 0,
    fields: Mapping[str, Any] | None = None,
    allow_new_data: bool = False,
    profile: tuple[int, int] | None = None,
    quiet: bool = False,
) -> str:
    """Train to the end, as `ift train` does; resume if the workdir holds a run.

    Args:
        model: A Hugging Face folder, or a run's workdir, to finetune; with `data`.
        data: A file, folder or pattern of rows, or several of them; see `ift train --help`.
        workdir: The folder of the run's files.
        config: A config file, instead of `model` and `data`.
        lora: The rank of adapters; 0 trains all parameters.
        fields: Fields of the config by dotted name, such as {"train.epochs": 1.0}.
        allow_new_data: Whether a run may go on with other data than it began with.
        profile: The first and the last step to trace, for TensorBoard and xprof.
        quiet: Whether to print nothing.

    Returns:
        The workdir, for `load`.

    Raises:
        UserError: As the command would report it.
    """
    from ift_jax.commands import run_config
    from ift_jax.commands.main import choose_platform

    choose_platform()  # Before JAX is imported.
    from ift_jax.training.console import Console
    from ift_jax.training.loop import train as train_run

    args = argparse.Namespace(
        model=model,
        data=data,
        config=config,
        lora=lora,
        workdir=absolute(workdir),
        overrides=_overrides(fields),
    )
    steps = _profiled_steps(profile)
    console = Console(quiet=quiet)
    stages = run_config.load_stages(args)
    if stages:
        if profile is not None:
            raise UserError("profile: expected a run without stages")
        from ift_jax.training.stages import train_stages

        train_stages(stages, args.workdir, console, allow_new_data=allow_new_data)
        return args.workdir
    chosen = run_config.load(args, console.line)
    train_run(
        chosen.config,
        args.workdir,
        console,
        chosen.reasons,
        allow_new_data=allow_new_data,
        profile=steps,
    )
    return args.workdir


def _profiled_steps(profile: tuple[int, int] | None) -> range:
    from ift_jax.commands import arguments

    if profile is None:
        return range(0)
    try:
        return arguments.steps(":".join(map(str, profile)))
    except argparse.ArgumentTypeError as error:
        raise UserError(f"profile: {error}") from error


def inspect(
    model: str = "",
    data: str = "",
    *,
    config: str = "",
    lora: int = 0,
    fields: Mapping[str, Any] | None = None,
    which: str = "train",
    tasks: Sequence[str] = (),
    examples: int = 1,
    all_tasks: bool = False,
    html: str = "",
) -> None:
    """Show what a run is trained on, as `ift inspect` does; nothing is trained.

    It prints what would be chosen for the run, the counts, rates and lengths of the tasks, and
    examples whose trained tokens are colored or, where there are no colors, between marks. Missing
    token stores are made; `train` uses them.

    Args:
        model: A Hugging Face folder, or a run's workdir, to finetune; with `data`.
        data: A file, folder or pattern of rows, or several of them.
        config: A config file, instead of `model` and `data`.
        lora: The rank of adapters; 0 trains all parameters.
        fields: Fields of the config by dotted name.
        which: The mixture: "train", "eval" (unseen examples) or "heldout" (tasks that training
            never sees).
        tasks: Show only these tasks.
        examples: How many examples of each task.
        all_tasks: Whether to list every task, even of a mixture of many, which is summarized
            otherwise.
        html: A file to write instead, a page with the role and weight of every token.

    Raises:
        UserError: As the command would report it.
    """
    from ift_jax.commands import inspect as command
    from ift_jax.commands.main import choose_platform

    choose_platform()  # Before JAX is imported.
    _check_which(which, ("train", "eval", "heldout"))
    if not (config or model or data):
        raise UserError("inspect: expected config, or model and data")
    args = argparse.Namespace(
        mixture=None,
        model=model,
        data=data,
        config=config,
        lora=lora,
        overrides=_overrides(fields),
        which=which,
        task=list(tasks),
        examples=examples,
        all=all_tasks,
        html=html and absolute(html),
        lint=False,
        stage="",
    )
    command.run(args)


def evaluate(
    path: str,
    step: "StepChoice" = None,
    *,
    config: str = "",
    which: str = "eval",
    split: str = "",
    fields: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Answer examples with a model and score the answers, as `ift eval` does.

    Args:
        path: The workdir of a run, or a Hugging Face folder.
        step: The checkpoint of a run, or "best"; by default its newest.
        config: The config that says what is evaluated, and how; by default the run's own. With the
            `config.yaml` of a run, the model that the run began from is scored as the run is.
        which: "eval", unseen examples of the trained tasks; "heldout", tasks that training never
            sees; or "train".
        split: Another split of that mixture than the config names.
        fields: Fields of the config by dotted name, such as {"evaluation.examples": 50}.
        quiet: Whether to print no table of scores.

    Returns:
        "tasks": the scores of each task by the names of metrics; "overall": their means over tasks;
        "intervals": 95% intervals; "answers": each prompt, its references and the model's answer;
        "failures": metrics that could not be computed; "step", and others.

    Raises:
        UserError: As the command would report it.
        KeyboardInterrupt: A signal ended the evaluation.
    """
    from ift_jax.commands import eval as command
    from ift_jax.commands.main import choose_platform

    choose_platform()  # Before JAX is imported.
    from ift_jax.checkpoint.open_model import open_model_source
    from ift_jax.evaluation.evaluate_model import evaluate_model
    from ift_jax.evaluation.score_table import table
    from ift_jax.io.stop_signals import StopSignals

    _check_which(which, ("eval", "heldout", "train"))
    workdir = absolute(path)
    chosen = command.evaluated_config(config, workdir, _overrides(fields), which, split)
    result = evaluate_model(chosen, open_model_source(workdir, step), which, StopSignals())
    if not result["complete"]:
        raise KeyboardInterrupt
    if not quiet:
        print(*table(f"{which}, step {result['step']}", result), sep="\n")
    return result


def _overrides(fields: Mapping[str, Any] | None) -> list[str]:
    return [f"--config.{name}={value}" for name, value in (fields or {}).items()]


def _check_which(which: str, choices: Sequence[str]) -> None:
    if which not in choices:
        raise UserError(f"which: expected one of {', '.join(choices)}; got {which!r}")
