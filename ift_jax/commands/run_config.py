"""Which config a command works with: a file's, a run's own, or that of a model and its data."""

import argparse
import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ift_jax.commands import arguments
from ift_jax.config import data_items
from ift_jax.config.files import overridden
from ift_jax.config.schema import Config
from ift_jax.errors import UserError
from ift_jax.io.paths import exists

LORA_RANK = 16  # What --lora alone means.
_NOTHING: Mapping[str, str] = {}


class RunConfig(NamedTuple):
    """A config, and why its fields were chosen.

    Attributes:
        config: The config.
        reasons: Dotted names of fields -> why they were chosen; empty where nothing was.
    """

    config: Config
    reasons: Mapping[str, str] = _NOTHING


def add_model_and_data(parser: argparse.ArgumentParser) -> None:
    """Adds `--model`, `--data` and `--lora`, which stand for a config."""
    group = parser.add_argument_group(
        "a model and its data",
        "Instead of --config. The rest of the config is chosen from the model, the data and the "
        "devices, and printed.",
    )
    group.add_argument(
        "--model", metavar="DIR", help="a Hugging Face folder or the workdir of a run to finetune"
    )
    group.add_argument(
        "--data",
        metavar="FILES",
        help="a file, folder or pattern of rows, or hf://OWNER/NAME:SUBSET@REVISION#SPLIT on the "
        "Hugging Face hub (extra hf; its cache comes first); several with commas, each with a "
        "weight or none (a.jsonl=2,b.jsonl=1)",
    )
    group.add_argument(
        "--lora",
        nargs="?",
        type=int,
        const=LORA_RANK,
        default=0,
        metavar="RANK",
        help=f"train low-rank adapters instead of all parameters; default rank: {LORA_RANK}",
    )


def chooses(args: argparse.Namespace) -> bool:
    """Whether `load` will choose a config from a model and its data, and ask the devices."""
    return not (args.config or _has_run(args)) and bool(args.model and args.data)


def _has_run(args: argparse.Namespace) -> bool:
    workdir = getattr(args, "workdir", None) or ""
    return bool(workdir) and exists(os.path.join(workdir, "config.json"))


def load(
    args: argparse.Namespace, log: Callable[[str], None] = print, *, weights: bool = True
) -> RunConfig:
    """Loads the config that the flags describe.

    Args:
        args: Flags of `arguments.add_config` and `add_model_and_data`; `args.workdir`, where there
            is one, is the run's.
        log: Called with lines on what was chosen.
        weights: As `arguments.load_config` takes it.

    Raises:
        UserError: The flags contradict each other, or what they name cannot be used.
    """
    workdir = getattr(args, "workdir", None) or ""
    if args.config:
        given = next((flag for flag in ("model", "data", "lora") if getattr(args, flag)), None)
        if given:
            raise UserError(f"--{given}: is for a run without --config; give one of the two")
        return RunConfig(arguments.load_config(args, weights=weights))
    if _has_run(args):
        from ift_jax.checkpoint.run_description import own_config  # Imports JAX.

        config = arguments.completed(own_config(workdir, args.overrides), weights=False)
        _check_same_request(args, config, workdir)
        return RunConfig(config)
    if not args.model and not args.data:
        where = f"{workdir} is not the workdir of a run yet: " if workdir else ""
        raise UserError(f"{where}expected --config FILE, or --model DIR with --data FILES")
    if not args.model or not args.data:
        missing = "--data FILES" if args.model else "--model DIR"
        raise UserError(f"--{'model' if args.model else 'data'}: expected {missing} beside it")
    return _chosen(args, log)


def _chosen(args: argparse.Namespace, log: Callable[[str], None]) -> RunConfig:
    from ift_jax.planning import finetuning_config

    if args.lora < 0:
        raise UserError(f"--lora: expected a positive rank; got {args.lora}")
    config = finetuning_config.given_config(args.model, args.data, args.lora, args.overrides)
    for item in data_items.parse(config.data.root):
        if item.note:
            log(item.note)
    given = overridden(args.overrides)
    config, choices = finetuning_config.finetuning_config(config, given, log)
    for line in finetuning_config.lines(choices):
        log(line)
    return RunConfig(config, {choice.field: choice.reason for choice in choices})


def _check_same_request(args: argparse.Namespace, config: Config, workdir: str) -> None:
    """Refuses a workdir whose run is of another model, other data or another kind of training."""
    model = args.model and os.path.abspath(args.model)
    data = config.data.root
    if args.data and not data_items.is_same(args.data, data):
        data = data_items.absolute(args.data)  # Names what is not there.
    asked = {
        "--model": (model, config.model.init_from),
        "--data": (args.data and data, config.data.root),
        "--lora": (args.lora, config.lora.rank),
    }
    for flag, (now, before) in asked.items():
        if now and now != before:
            raise UserError(
                f"{flag} {now}: the run in {workdir} has {before or 'none'}; use another --workdir "
                "for another run"
            )
