"""Flags that several commands share."""

import argparse
import dataclasses
import os
from typing import TYPE_CHECKING, Any

from ift_jax.config import files as config_file
from ift_jax.config.help import help_lines
from ift_jax.config.schema import Config
from ift_jax.config.systems import add_tasks_folder, modules_of, systems_table
from ift_jax.errors import UserError
from ift_jax.inspection import default_config
from ift_jax.io.paths import absolute, exists, is_remote

if TYPE_CHECKING:  # `ift COMMAND --help` needs no JAX.
    from ift_jax.decoding import Options


def add_config(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """`--config FILE[:ARGUMENT]` and `--config.a.b=value`."""
    parser.add_argument(
        "--config",
        required=required,
        metavar="FILE",
        help="a config file with get_config(), or FILE:ARGUMENT for get_config(ARGUMENT); any "
        "field is set with --config.section.field=value",
    )
    parser.add_argument(
        "--help-config",
        action=_HelpConfig,
        nargs=0,
        help="print every field of a config with its default, allowed values and help, and exit",
    )


class _HelpConfig(argparse.Action):
    """Prints the fields of a config and exits, as --help does: no other flag is needed."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        print(*help_lines(), sep="\n")
        parser.exit()


def load_config(args: argparse.Namespace, *, weights: bool = True) -> Config:
    """The checked config of the flags; without `weights`, `model.init_from` need not be there.

    With it: the modules of the systems that its mixtures are named after, a `.jinja` template's
    text, and what `model.init_from` decides.
    """
    file = args.config.partition(":")[0]
    add_tasks_folder("" if file == default_config.__file__ else file)
    config = config_file.load(args.config, args.overrides)
    data = config.data
    if not data.modules:
        names = (data.mixture, data.eval_mixture, data.heldout_mixture)
        modules = modules_of(systems_table(data.systems), *names)
        config = dataclasses.replace(config, data=dataclasses.replace(data, modules=modules))
    if config.format.template.endswith(".jinja"):
        from ift_jax.io.files import read_template_file

        text = read_template_file(config.format.template)
        formatted = dataclasses.replace(config.format, template=text)
        config = dataclasses.replace(config, format=formatted)
    if config.model.init_from and (weights or exists(config.model.init_from)):
        from ift_jax.checkpoint.model_source import resolve_init

        config = resolve_init(config)
    return config


def local_path(path: str) -> str:
    """The absolute path of a local file or folder."""
    if is_remote(path):
        raise argparse.ArgumentTypeError(f"{path}: expected a local or mounted path")
    return os.path.abspath(path)


def add_workdir(parser: argparse.ArgumentParser, what: str) -> None:
    """`--workdir DIR`."""
    what += "; gs://BUCKET/PATH with the extra gcs"
    parser.add_argument("--workdir", required=True, type=absolute, metavar="DIR", help=what)


def add_model(parser: argparse.ArgumentParser) -> None:
    """`--workdir DIR`, of a run, and `--step N`."""
    add_workdir(parser, "the workdir of a run")
    parser.add_argument("--step", type=int, help="the checkpoint; default: the newest")


def add_generation(parser: argparse.ArgumentParser) -> None:
    """How tokens are chosen, and what ends an answer."""
    parser.add_argument("--temperature", type=float, default=0.0, help="0: greedy (default)")
    parser.add_argument("--top-k", type=int, default=0, help="0: all (default)")
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument(
        "--min-p", type=float, default=0.0, help="least share of the likeliest token's probability"
    )
    parser.add_argument("--repetition-penalty", type=float, default=1.0, help="1: none (default)")
    parser.add_argument(
        "--stop", action="append", default=[], metavar="STRING", help="ends an answer; repeatable"
    )
    parser.add_argument("--seed", type=int, default=0)


def generation_options(args: argparse.Namespace, max_new_tokens: int) -> "Options":
    """What the flags of `add_generation` ask for; UserError where a value is out of range."""
    from ift_jax.decoding import Options, Sampling

    try:
        if "" in args.stop:
            raise ValueError("--stop: expected a text that is not empty")
        chosen = (args.temperature, args.top_k, args.top_p, args.min_p, args.repetition_penalty)
        return Options(max_new_tokens, Sampling(*chosen), args.seed)
    except ValueError as error:
        raise UserError(str(error)) from error
