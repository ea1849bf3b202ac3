"""What a workdir says about its run: `config.json` and the tokenizer's files."""

import dataclasses
import os
from typing import Any

from ift_jax.config import files as config_files
from ift_jax.config.schema import Config
from ift_jax.errors import UserError
from ift_jax.io.folders import write_files
from ift_jax.io.paths import as_path
from ift_jax.text.tokenizers.base import Tokenizer

CONFIG_FILE = "config.json"
TOKENIZER_FOLDER = "tokenizer"
# The dtype of each tensor of an imported model as it was released.
DTYPES_FILE = "source_dtypes.json"

# The sections of a config that must be the same when a run is resumed, without these fields,
# which say where and how stores are made but not what they hold.
_IDENTITY_SECTIONS = ("tokenizer", "format", "data", "model", "lora")
_NOT_IDENTITY = ("processes", "store_dir")


def save_description(workdir: str, config: Config, tokenizer: Tokenizer) -> None:
    """Write `config.json` and the tokenizer's files into a local workdir."""
    files = {f"{TOKENIZER_FOLDER}/{name}": content for name, content in tokenizer.files.items()}
    files[CONFIG_FILE] = config_files.to_json(config).encode()
    write_files(workdir, files)


def check_same_run(workdir: str, config: Config) -> None:
    """Refuse to resume a run with other data, another model, or other batches.

    What may change: the length of the run, the optimizer (except what is frozen), the loss, what
    is written when, the evaluation, and the mesh.

    Args:
        workdir: The workdir; if it has no `config.json` yet, there is nothing to compare with.
        config: The config of the run that is about to start there.

    Raises:
        UserError: Names the first field that differs.
    """
    path = os.path.join(workdir, CONFIG_FILE)
    if not as_path(path).exists():
        return
    before = _identity(config_files.from_json(path))
    for field, value in _identity(config).items():
        if before.get(field) != value:
            raise UserError(
                f"config.{field}: the run in {workdir} has {before.get(field)!r}, now it is "
                f"{value!r}; use another --workdir for another run"
            )


def _identity(config: Config) -> dict[str, Any]:
    """Return the fields, by dotted name, that must be the same when a run is resumed."""
    values = dataclasses.asdict(config)
    identity = {
        f"{section}.{name}": value
        for section in _IDENTITY_SECTIONS
        for name, value in values[section].items()
        if name not in _NOT_IDENTITY
    }
    identity["optimizer.freeze"] = config.optimizer.freeze
    identity["seed"] = config.seed
    identity["train.batch_size"] = config.train.batch_size
    return identity
