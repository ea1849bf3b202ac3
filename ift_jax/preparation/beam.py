"""Making the parts of stores with Apache Beam, where one machine is too small.

Each part is an element. The workers call the same function as local processes, and must see the
data, the code and the store folder as the launcher does. They write parts and their reports; when
all are done, the launcher reads the reports and writes the manifests.
"""

import dataclasses
import functools
import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ift_jax.config.schema import Config
from ift_jax.errors import UserError, did_you_mean
from ift_jax.io.json_reader import read_json_file
from ift_jax.io.paths import absolute, as_path
from ift_jax.preparation.shards import Part
from ift_jax.preparation.store_writer import summed
from ift_jax.preparation.tensorflow_import import quiet_tensorflow_import
from ift_jax.preparation.write_part import write_part_by_name


class BeamWorkers:
    """Makes parts in the workers of a Beam runner; an `executors.Executor`.

    Args:
        config: The run's config.
        tokenizer_path: The tokenizer's file or folder.
        flags: Beam's flags, as `checked_options` returns them.
    """

    def __init__(self, config: Config, tokenizer_path: str, flags: Sequence[str]) -> None:
        self._config = config
        self._tokenizer_path = absolute(tokenizer_path)  # A worker may run in another folder.
        self._flags = list(flags)

    def run(self, parts: Sequence[Part]) -> Iterator[dict[str, Any]]:
        parts = [
            dataclasses.replace(part, folder=as_path(absolute(str(part.folder)))) for part in parts
        ]
        for part in parts:
            _error_path(part).unlink(missing_ok=True)
        make = functools.partial(_make, self._config, self._tokenizer_path)
        beam = _import_beam()
        options = beam.options.pipeline_options.PipelineOptions(self._flags)
        with beam.Pipeline(options=options) as pipeline:
            # Without the shuffle a runner makes all parts in the one worker that lists them.
            pipeline | beam.Create(parts) | beam.Reshuffle() | beam.Map(make)
        for part in parts:
            if _error_path(part).exists():
                raise UserError(_error_path(part).read_text("utf-8"))
            yield summed([read_json_file(path) for path in part.report_paths])


def _make(config: Config, tokenizer_path: str, part: Part) -> None:
    """Make a part in a worker.

    A user's mistake is left in a file, because a runner would only try an element that raises it
    again and again.
    """
    try:
        write_part_by_name(config, tokenizer_path, part)
    except UserError as error:
        _error_path(part).write_text(str(error), "utf-8")


def _error_path(part: Part) -> Path:
    return part.report_path.with_suffix(".error")


def checked_options(runner: str, options: Sequence[str]) -> list[str]:
    """Return Beam's flags for a runner with options, all of which Beam knows.

    Args:
        runner: The name of a Beam runner.
        options: Flags of Beam, such as "--direct_num_workers=2".

    Raises:
        UserError: Beam is not installed, or does not take the runner or an option.
    """
    flags = [f"--runner={runner}", *options]
    beam = _import_beam()
    pipeline_options = beam.options.pipeline_options.PipelineOptions
    known = pipeline_options([]).get_all_options()
    made = pipeline_options(flags)

    def check(parser: Any) -> None:
        # Called with Beam's own argparse parser, whose usage message would list every option.
        parser.error = _raise_option_error
        unknown = parser.parse_known_args(flags)[1]
        if unknown:
            name = unknown[0].partition("=")[0]
            hint = did_you_mean(name, [f"--{option}" for option in known])
            raise UserError(f"{name}: no such option of Beam{hint}")

    made.get_all_options(add_extra_args_fn=check)
    try:
        beam.Pipeline(options=made)  # Only made, not run: a runner checks its own options here.
    except (ValueError, ImportError, AttributeError) as error:
        raise UserError(f"--runner {runner}: {' '.join(str(error).split())}") from None
    return flags


def _raise_option_error(message: str) -> NoReturn:
    raise UserError(f"options for Beam: {message}")


def _import_beam() -> Any:
    try:
        with quiet_tensorflow_import():
            return importlib.import_module("apache_beam")
    except ImportError:
        raise UserError("--runner needs Apache Beam: run launch/setup.sh beam") from None
