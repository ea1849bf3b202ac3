"""`ift merge`.

For example:
  ift merge runs/a runs/b --workdir runs/merged
  ift merge runs/a runs/b --weights 0.7,0.3 --workdir runs/merged
  ift merge runs/mine --steps 300,400,500 --workdir runs/averaged

The new workdir holds the weighted mean of the parameters at step 0, with the config and tokenizer
of the first model; adapters of runs with LoRA are merged into their weights first.
"""

import argparse
import math

from ift_jax.commands import arguments
from ift_jax.errors import UserError
from ift_jax.io.outputs import new_output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="the workdir of a run, a Hugging Face folder, or a .gguf file",
    )
    parser.add_argument(
        "--weights",
        default="",
        metavar="A,B,...",
        help="a weight for each model or step; they must sum to 1; default: the same for all",
    )
    parser.add_argument(
        "--steps",
        default="",
        metavar="N,N,...",
        help="with one MODEL, a run: the checkpoints to average; default: the newest of each",
    )
    arguments.add_workdir(parser, "the workdir to make")


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    from ift_jax.checkpoint.merge_models import Part, merge_models

    steps = _steps(args.steps)
    if steps and len(args.models) > 1:
        raise UserError("--steps: expected one MODEL beside it, whose checkpoints are averaged")
    paths = args.models * max(len(steps), 1)
    if len(paths) < 2:
        raise UserError("expected two models or more, or one run with --steps N,N,...")
    weights = _weights(args.weights, len(paths))
    which: list[int | None] = [*steps] or [None] * len(paths)
    parts = [Part(*part) for part in zip(paths, which, weights, strict=True)]
    with new_output(args.workdir, "--workdir"):
        merged = merge_models(parts, args.workdir)
    for part in parts:
        step = "" if part.step is None else f" at step {part.step}"
        print(f"{part.weight:>8.4g} x {part.path}{step}")
    print(f"{merged.model.n_params:,} parameters; workdir: {args.workdir}")


def _steps(text: str) -> list[int]:
    """Read the flag --steps."""
    steps = [word.strip() for word in text.split(",")] if text else []
    for word in steps:
        if not word.isdecimal():
            raise UserError(f"--steps: expected numbers of steps such as 300,400; got {word!r}")
    if len(set(steps)) < len(steps):
        raise UserError(f"--steps: a step is named twice: {text}")
    return [int(word) for word in steps]


def _weights(text: str, n_models: int) -> list[float]:
    """Read the flag --weights; equal weights if it is absent."""
    if not text:
        return [1 / n_models] * n_models
    weights = []
    for word in text.split(","):
        try:
            weights.append(float(word))
        except ValueError:
            weights.append(math.nan)
        if not math.isfinite(weights[-1]):
            raise UserError(f"--weights: expected numbers such as 0.5,0.5; got {word!r}")
    if len(weights) != n_models:
        raise UserError(f"--weights: {len(weights)} weights for {n_models} models")
    return weights
