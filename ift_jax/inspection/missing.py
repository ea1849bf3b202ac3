"""What a run lacks on this machine, for a dry run: weights, tokenizer, data."""

import os

from ift_jax.config.mixtures import mixture_and_split
from ift_jax.config.schema import Config
from ift_jax.errors import UserError
from ift_jax.io.paths import exists
from ift_jax.preparation.tensorflow_import import quiet_tensorflow_import


def missing(config: Config) -> list[str]:
    """A line for each thing that is not there, with how to get it where its source says so.

    Looks at files and tasks on this machine only: nothing is tokenised or fetched. Of a mixture,
    the first task whose data is not there speaks for all, and for its other splits.

    Raises:
        UserError: what no data mends: a name that is not registered, or a run that trains on what
            it holds out.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # Both are read when they are imported.
    os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    with quiet_tensorflow_import():
        from ift_jax.preparation import holdout_check, seqio_registry
        from ift_jax.preparation.source_files import source_fingerprint

    lines, data = [], config.data
    for field, path, what in (
        ("model.init_from", config.model.init_from, "a Hugging Face folder or a run's workdir"),
        ("tokenizer.path", config.tokenizer.path, "a tokenizer, which comes with the weights"),
    ):
        if path and not exists(path):
            lines.append(
                f"config.{field} {path}: no such file or folder; expected {what}: get it and "
                f"set --config.{field}"
            )
    try:
        seqio_registry.import_modules(data.modules, data.root)
    except UserError as error:
        return [*lines, str(error)]
    holdout_check.check_config(data)
    absent: set[str] = set()
    for which in ("train", "eval", *(("heldout",) if data.heldout_mixture else ())):
        name, split, field = mixture_and_split(config, which)
        if name in absent:
            continue
        provider = seqio_registry.resolve(name, field)
        try:
            for task in seqio_registry.tasks_of(provider, split, field):
                source_fingerprint(task.source, split)
        except UserError as error:
            absent.add(name)
            lines.append(f"{field} {name!r}, split {split!r}: {error}")
    return lines
