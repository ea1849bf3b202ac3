"""Making the parts of stores with Apache Beam, where one machine is too small.

Each part is an element; the workers call the very function that local processes call, and see the
data, the code and the store folder as the launcher does. They write parts and their reports; the
launcher, when all is done, reads the reports, and writes the manifests.
"""

import dataclasses
import functools
import importlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ift_jax.config.schema import Config
from ift_jax.errors import UserError, did_you_mean
from ift_jax.io.paths import absolute, place
from ift_jax.preparation.shards import Unit, quiet_import, run_unit


def checked_options(runner: str, options: Sequence[str]) -> list[str]:
    """Beam's flags for a runner with these options, all of which Beam knows.

    Raises:
        UserError: Beam is not installed, or names the runner or option that it does not take.
    """
    flags = [f"--runner={runner}", *options]

    def check(parser: Any) -> None:
        def refuse(message: str) -> None:
            raise UserError(f"options for Beam: {message}")

        parser.error = refuse  # Its own prints every option that Beam has.
        if unknown := parser.parse_known_args(flags)[1]:
            name = unknown[0].partition("=")[0]
            known = [text for action in parser._actions for text in action.option_strings]
            raise UserError(f"{name}: no such option of Beam{did_you_mean(name, known)}")

    beam = _beam()
    made = beam.options.pipeline_options.PipelineOptions(flags)
    made.get_all_options(add_extra_args_fn=check)
    try:
        beam.Pipeline(options=made)  # Only made: a runner looks at its own options here.
    except (ValueError, ImportError, AttributeError) as error:
        raise UserError(f"--runner {runner}: {' '.join(str(error).split())}") from None
    return flags


def run(
    config: Config, units: Sequence[Unit], tokenizer_path: str, flags: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Makes parts; yields their reports.

    Raises:
        UserError: what a worker raised.
    """
    # A worker may run in another folder.
    units = [dataclasses.replace(unit, folder=place(absolute(str(unit.folder)))) for unit in units]
    for unit in units:
        _refusal(unit).unlink(missing_ok=True)
    make = functools.partial(_make, config, absolute(tokenizer_path))
    beam = _beam()
    with beam.Pipeline(options=beam.options.pipeline_options.PipelineOptions(flags)) as pipeline:
        # Without the shuffle a runner makes all parts in the one worker that lists them.
        pipeline | beam.Create(units) | beam.Reshuffle() | beam.Map(make)
    for unit in units:
        if _refusal(unit).exists():
            raise UserError(_refusal(unit).read_text("utf-8"))
        yield json.loads(unit.path.with_suffix(".json").read_bytes())


def _make(config: Config, tokenizer_path: str, unit: Unit) -> None:
    """In a worker. A user's mistake is left in a file: a runner would only try again."""
    try:
        run_unit(config, tokenizer_path, unit)
    except UserError as error:
        _refusal(unit).write_text(str(error), "utf-8")


def _refusal(unit: Unit) -> Path:
    return unit.path.with_suffix(".refused")


def _beam() -> Any:
    try:
        with quiet_import():
            return importlib.import_module("apache_beam")
    except ImportError:
        raise UserError("--runner needs Apache Beam: run launch/setup.sh beam") from None
