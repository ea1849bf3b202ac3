"""What a run lacks on this machine, for a dry run: weights, tokenizer, data."""

import os
from collections.abc import Iterator

from ift_jax.config.mixtures import mixture_and_split
from ift_jax.config.schema import Config
from ift_jax.errors import UserError
from ift_jax.io.hub_names import hub_hint
from ift_jax.io.paths import exists
from ift_jax.preparation.tensorflow_import import quiet_tensorflow_import
from ift_jax.text.rows.parse_record import RowOptions


def missing(config: Config) -> list[str]:
    """Return a line for each thing that is not there, with how to get it where its source says so.

    Only files and tasks on this machine are looked at: nothing is tokenized or fetched. The first
    task of a mixture whose data is missing speaks for the whole mixture and all its splits.

    Raises:
        UserError: A mistake that no data would mend: a name that is not registered, or a run that
            trains on what it holds out.
    """
    # The packages read these when they are imported.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    with quiet_tensorflow_import():
        from ift_jax.preparation import holdout_check, seqio_registry

    lines = list(_missing_paths(config))
    try:
        seqio_registry.import_modules(
            config.data.modules, config.data.root, RowOptions.of(config.data)
        )
    except UserError as error:
        return [*lines, str(error)]
    holdout_check.check_config(config.data)
    return [*lines, *_missing_data(config)]


def _missing_paths(config: Config) -> Iterator[str]:
    for field, path, expected in (
        ("model.init_from", config.model.init_from, "a Hugging Face folder or a run's workdir"),
        ("tokenizer.path", config.tokenizer.path, "a tokenizer, which comes with the weights"),
    ):
        if path and not exists(path):
            yield (
                f"config.{field} {path}: no such file or folder; expected {expected}: get it and "
                f"set --config.{field}{hub_hint(path)}"
            )


def _missing_data(config: Config) -> Iterator[str]:
    from ift_jax.preparation import seqio_registry
    from ift_jax.preparation.source_files import source_fingerprint

    parts = ["train", "eval"]
    if config.data.heldout_mixture:
        parts.append("heldout")
    absent: set[str] = set()
    for which in parts:
        name, split, field = mixture_and_split(config, which)
        if name in absent:
            continue
        provider = seqio_registry.resolve(name, field)
        try:
            for task in seqio_registry.tasks_of(provider, split, field):
                source_fingerprint(task, split)
        except UserError as error:
            absent.add(name)
            yield f"{field} {name!r}, split {split!r}: {error}"
