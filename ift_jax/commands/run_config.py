"""Which config a command works with: a file's, a run's own, or that of a model and its data."""

import argparse
import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ift_jax.commands import arguments
from ift_jax.config import data_items
from ift_jax.config.files import overridden
from ift_jax.config.schema import Config
from ift_jax.config.stages import Stage
from ift_jax.errors import UserError
from ift_jax.io.paths import Workdir, exists

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
        "--model", metavar="DIR", help="the Hugging Face folder, or workdir of a run, to finetune"
    )
    group.add_argument(
        "--data",
        metavar="FILES",
        help="a file, folder or pattern of rows, or hf://OWNER/NAME:SUBSET@REVISION#SPLIT on the "
        "Hugging Face hub (extra hf; its cache is read first); several with commas, each with a "
        "weight or none (a.jsonl=2,b.jsonl=1)",
    )
    group.add_argument(
        "--lora",
        nargs="?",
        type=arguments.whole_number(0),
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


def _has_stages(workdir: str) -> bool:
    return bool(workdir) and exists(os.path.join(workdir, "stages.json"))


def _check_config_alone(args: argparse.Namespace) -> None:
    """Raises a UserError for a flag that a config file leaves no room for."""
    for flag in ("model", "data", "lora"):
        if getattr(args, flag):
            raise UserError(f"--{flag}: is for a run without --config; give one of the two")


def load_stages(args: argparse.Namespace, *, weights: bool = True) -> list[Stage]:
    """Loads the stages that the flags describe; none if they describe a single run.

    The arguments and errors are those of `load`.
    """
    workdir = getattr(args, "workdir", None) or ""
    if args.config:
        _check_config_alone(args)
        return arguments.load_stages(args, weights=weights)
    if args.model or args.data or not _has_stages(workdir):
        return []
    from ift_jax.checkpoint.run_description import read_stages  # Imports JAX.

    stages = read_stages(Workdir(workdir).local, args.overrides)
    return arguments.completed_stages(stages, weights=False)


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
    stage = getattr(args, "stage", "")  # Only some commands have the flag.
    if stage and not args.config:
        raise UserError(f"--stage {stage}: expected --config FILE with stages beside it")
    if args.config:
        _check_config_alone(args)
        return RunConfig(arguments.load_config(args, weights=weights))
    if _has_stages(workdir):
        raise UserError(f"{workdir}: is a run of stages; expected the workdir of one of them")
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


def given(args: argparse.Namespace) -> Config:
    """The config of what the flags say, before the rest is chosen; asks no device.

    Raises:
        UserError: The model or the data is not there, or an override is wrong.
    """
    from ift_jax.planning import finetuning_config

    if args.lora < 0:
        raise UserError(f"--lora: expected a positive rank; got {args.lora}")
    return finetuning_config.given_config(args.model, args.data, args.lora, args.overrides)


def _chosen(args: argparse.Namespace, log: Callable[[str], None]) -> RunConfig:
    from ift_jax.planning import finetuning_config

    config = given(args)
    for item in data_items.parse(config.data.root):
        if item.note:
            log(item.note)
    set_fields = overridden(args.overrides)
    config, choices = finetuning_config.finetuning_config(config, set_fields, log)
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
    if "lora.rank" in overridden(args.overrides):
        del asked["--lora"]  # The field counts, as it did when the run began.
    for flag, (now, before) in asked.items():
        if now and now != before:
            raise UserError(
                f"{flag} {now}: the run in {workdir} has {before or 'none'}; use another --workdir "
                "for another run"
            )
