"""Flags that several commands share, and the config that they describe."""

import argparse
import dataclasses
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ift_jax.config import data_items
from ift_jax.config import files as config_file
from ift_jax.config.fields import LARGEST
from ift_jax.config.help import help_lines
from ift_jax.config.schema import Config
from ift_jax.config.stages import Stage, of_stage
from ift_jax.config.systems import add_tasks_folder, modules_of, systems_table
from ift_jax.errors import UserError
from ift_jax.inspection import default_config
from ift_jax.io.paths import absolute, exists, is_remote

if TYPE_CHECKING:  # `ift COMMAND --help` needs no JAX.
    from ift_jax.checkpoint.model_source import ModelSource
    from ift_jax.decoding import Options


def add_config(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Adds `--config FILE[:ARGUMENT]` and `--help-config`."""
    parser.add_argument(
        "--config",
        required=required,
        metavar="FILE",
        help="a Python file with a function get_config(), FILE:ARGUMENT for "
        "get_config(ARGUMENT), or a YAML file such as a run's config.yaml; "
        "--config.section.field=value sets any field",
    )
    parser.add_argument(
        "--help-config",
        action=_HelpConfig,
        nargs=0,
        help="print every field of a config with its default, allowed values and help, and exit",
    )


def add_stage(parser: argparse.ArgumentParser, default: str = "") -> None:
    """Adds `--stage NAME`, which names one run of a config with stages."""
    parser.add_argument(
        "--stage",
        metavar="NAME",
        default="",
        help=f"the one stage to use of a config with stages{default}",
    )


class _HelpConfig(argparse.Action):
    """Prints the fields of a config and exits; like --help, it needs no other flag."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        print(*help_lines(), sep="\n")
        parser.exit()


def load_config(args: argparse.Namespace, *, weights: bool = True) -> Config:
    """Loads and checks the config that the flags describe.

    Modules are added for the systems that its mixtures are named after, a `.jinja` template is
    replaced by its text, and `model.init_from` decides the fields of the model.

    Args:
        args: flags of `add_config`.
        weights: whether `model.init_from` must exist. `ift plan` and dry runs can do without.

    Raises:
        UserError: the config, the template or `model.init_from` is wrong.
    """
    file = args.config.partition(":")[0]
    add_tasks_folder("" if file == default_config.__file__ else file)
    stage = getattr(args, "stage", None)  # Only some commands have the flag.
    return completed(config_file.load(args.config, args.overrides, stage), weights=weights)


def load_stages(args: argparse.Namespace, *, weights: bool = True) -> list[Stage]:
    """Loads the stages of the config that the flags describe; none if it has no stages.

    Each is completed as by `load_config`, except that those which begin from another stage are
    without its model.
    """
    file = args.config.partition(":")[0]
    add_tasks_folder("" if file == default_config.__file__ else file)
    found = config_file.load_stages(args.config, args.overrides)
    return [] if isinstance(found, Config) else completed_stages(found, weights=weights)


def completed_stages(stages: Sequence[Stage], *, weights: bool = True) -> list[Stage]:
    """Fills in what stages leave to their surroundings; see `load_stages`."""
    done: list[Stage] = []
    for stage in stages:
        try:
            config = completed(stage.config, weights=weights, begins=not done)
        except UserError as error:
            raise of_stage(stage.name, error) from error
        done.append(Stage(stage.name, config))
    return done


def completed(config: Config, *, weights: bool = True, begins: bool = True) -> Config:
    """Fills in what a config leaves to its surroundings; see `load_config`.

    Args:
        config: The config.
        weights: Whether `model.init_from` must exist.
        begins: Whether `model.init_from` is looked at; a later stage's may have no checkpoint yet.
    """
    config = _with_modules(config)
    config = _with_template_text(config)
    if weights:
        config = _with_pinned_data(config)
    if begins and config.model.init_from and (weights or exists(config.model.init_from)):
        from ift_jax.checkpoint.init_from import resolve_init

        config = resolve_init(config)
    return config


def _with_modules(config: Config) -> Config:
    data = config.data
    if data.modules:
        return config
    names = (data.mixture, data.eval_mixture, data.heldout_mixture)
    modules = modules_of(systems_table(data.systems), *names)
    return dataclasses.replace(config, data=dataclasses.replace(data, modules=modules))


def _with_template_text(config: Config) -> Config:
    if not config.format.template.endswith(".jinja"):
        return config
    from ift_jax.io.files import read_template_file

    text = read_template_file(config.format.template)
    return dataclasses.replace(config, format=dataclasses.replace(config.format, template=text))


def _with_pinned_data(config: Config) -> Config:
    """The config with the commit of each data set of the hub, which a resumed run reads again."""
    data = config.data
    if data_items.MODULE not in data.modules or data_items.is_absolute(data.root):
        return config
    data = dataclasses.replace(data, root=data_items.absolute(data.root))
    return dataclasses.replace(config, data=data)


def whole_number(least: int) -> Callable[[str], int]:
    """Returns the type of a flag that takes a whole number of at least `least`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= LARGEST:
            raise argparse.ArgumentTypeError(
                f"expected a whole number, {least} or more; got {text[:80]!r}"
            )
        return value

    return parse


def steps(text: str) -> range:
    """The type of a flag that takes steps of a run as FIRST:LAST, both included.

    Raises:
        argparse.ArgumentTypeError: It names no steps; the first step of a run is 1.
    """
    first, _, last = text.partition(":")
    # So many digits are a step in any run.
    if all(re.fullmatch(r"[0-9]{1,12}", part) for part in (first, last)):
        named = range(int(first), int(last) + 1)
        if named and named[0] > 0:
            return named
    raise argparse.ArgumentTypeError(
        f"expected FIRST:LAST, two steps from 1 such as 10:13; got {text[:80]!r}"
    )


def number(text: str) -> float:
    """The type of a flag that takes a finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a number; got {text[:80]!r}")
    return value


def local_path(path: str) -> str:
    """The type of a flag that takes a local file or folder: its absolute path."""
    if is_remote(path):
        raise argparse.ArgumentTypeError(f"{path}: expected a local or mounted path")
    return os.path.abspath(path)


def add_workdir(parser: argparse.ArgumentParser, what: str, *aliases: str) -> None:
    """Adds `--workdir DIR`, with other names or none; `what` says what it is for the command."""
    parser.add_argument(
        "--workdir",
        *aliases,
        required=True,
        type=absolute,
        metavar="DIR",
        help=f"{what}; a local folder, or gs://BUCKET/PATH with the extra gcs",
    )


def add_model(parser: argparse.ArgumentParser, *aliases: str) -> None:
    """Adds `--workdir DIR`, `--step N` and `--best`, which name a model; see `open_model`."""
    add_workdir(parser, "the workdir of a run, or a Hugging Face folder", *aliases)
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--step",
        type=whole_number(0),
        metavar="N",
        help="the checkpoint to use; default: the newest",
    )
    which.add_argument(
        "--best",
        action="store_const",
        dest="step",
        const="best",  # ift_jax.checkpoint.model_source.BEST, whose import takes JAX.
        help="use the best checkpoint by train.best_metric, which train.keep_best keeps",
    )


def open_model(args: argparse.Namespace) -> "ModelSource":
    """Opens the model that the flags of `add_model` name; prints which one is the best.

    Raises:
        UserError: there is none.
    """
    from ift_jax.checkpoint.open_model import open_model_source

    source = open_model_source(args.workdir, args.step)
    if source.choice:
        print(source.choice, file=sys.stderr)  # What is no answer goes there.
    return source


def add_generation(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say how tokens are chosen, and what ends an answer."""
    parser.add_argument(
        "--temperature",
        type=number,
        default=0.0,
        metavar="F",
        help="sampling temperature; 0 (default): greedy",
    )
    parser.add_argument(
        "--top-k",
        type=whole_number(0),
        default=0,
        metavar="K",
        help="sample from the K most likely tokens; 0 (default): all",
    )
    parser.add_argument(
        "--top-p",
        type=number,
        default=1.0,
        metavar="F",
        help="sample from the most likely tokens with this total probability; default: 1",
    )
    parser.add_argument(
        "--min-p",
        type=number,
        default=0.0,
        metavar="F",
        help="leave out tokens with less than this share of the most likely token's probability; "
        "default: 0",
    )
    parser.add_argument(
        "--repetition-penalty",
        type=number,
        default=1.0,
        metavar="F",
        help="above 1, tokens that occurred already become less likely; 1 (default): no penalty",
    )
    parser.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="STRING",
        help="a text that ends an answer; repeatable",
    )
    parser.add_argument(
        "--seed",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="seed of the sampling; default: 0",
    )


def add_answers(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say how answers are searched, how many there are, and what is told."""
    parser.add_argument(
        "--n",
        "--num-return-sequences",
        type=whole_number(1),
        default=1,
        metavar="N",
        help="answers to each prompt: samples, or the best beams; default: 1",
    )
    parser.add_argument(
        "--num-beams",
        type=whole_number(1),
        default=1,
        metavar="N",
        help="number of beams of a beam search; 1 (default): no beam search",
    )
    parser.add_argument(
        "--length-penalty",
        type=number,
        metavar="POWER",
        help="beam search divides the log-probability of an answer by this power of its length; "
        "above 0 prefers longer answers; default: 1",
    )
    parser.add_argument(
        "--beam-rules",
        choices=("transformers", "t5x"),
        help="which length is raised to --length-penalty, and when a search ends: n tokens as in "
        "transformers (default), or (5 + n) / 6 as in T5X",
    )
    parser.add_argument(
        "--early-stopping",
        action="store_true",
        help="end a beam search as soon as it has --num-beams answers, as in transformers",
    )
    parser.add_argument(
        "--logprobs",
        type=whole_number(0),
        metavar="K",
        help="write the log-probabilities of each token of an answer and of the K most likely ones",
    )
    parser.add_argument(
        "--prompt-logprobs",
        type=whole_number(0),
        metavar="K",
        help="the same for the tokens of the prompt; decoders only",
    )


def generation_options(args: argparse.Namespace, max_new_tokens: int) -> "Options":
    """The options that the flags of `add_generation` and `add_answers` ask for.

    Raises:
        UserError: a value is out of range, or two flags exclude each other.
    """
    from ift_jax.decoding import BeamSearch, Options, Sampling

    if "" in args.stop:
        raise UserError("--stop: expected a text that is not empty")
    sampling = Sampling(
        args.temperature, args.top_k, args.top_p, args.min_p, args.repetition_penalty
    )
    if getattr(args, "num_beams", 1) == 1:  # Beam search says that it has no use for them.
        sampling.check_all_is_read()
    if "num_beams" not in args:
        return Options(max_new_tokens, sampling, args.seed)
    beams = None
    of_beams = {
        "length_penalty": args.length_penalty,
        "rules": args.beam_rules,
        "early_stopping": args.early_stopping or None,
    }
    given = {name: value for name, value in of_beams.items() if value is not None}
    if args.num_beams > 1:
        beams = BeamSearch(args.num_beams, **given)
    elif given:
        raise UserError(
            "--length-penalty, --beam-rules, --early-stopping: expected --num-beams of 2 or more"
        )
    return Options(
        max_new_tokens,
        sampling,
        args.seed,
        args.n,
        beams,
        logprobs=args.logprobs,
        prompt_logprobs=args.prompt_logprobs,
    )


def check_not_given(args: argparse.Namespace, names: Sequence[str], why: str) -> None:
    """Raises a UserError for a flag that is given though nothing would read it."""
    for name in names:
        if getattr(args, name) not in (None, "") and getattr(args, name) is not False:
            raise UserError(f"--{name.replace('_', '-')}: {why}")
