"""Which stores a mixture needs, named by what determines their bytes, and which of them exist."""

import dataclasses
import functools
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ift_jax.config.schema import Config
from ift_jax.data.store import FORMAT_VERSION, MANIFEST
from ift_jax.io.files import json_digest
from ift_jax.io.paths import as_path, is_remote
from ift_jax.preparation import fingerprints, shards
from ift_jax.text.examples import ExampleFormatter

if TYPE_CHECKING:
    import seqio

_CONFIG_IN_MANIFEST = ("variants", "max_length", "inputs_length", "targets_length", "over_length")


@dataclasses.dataclass(frozen=True)
class WantedStore:
    """A store that a mixture needs.

    Attributes:
        task: The task whose examples it holds.
        split: Their split.
        folder: Where it is once it is whole. Its name ends in a hash of `key`.
        key: All that determines the bytes of the store, by name.
    """

    task: "seqio.Task"
    split: str
    folder: Path
    key: dict[str, Any]

    @property
    def exists(self) -> bool:
        """Whether it is there, whole or damaged. A local folder gets its name when it is whole."""
        if is_remote(self.folder):
            return (self.folder / MANIFEST).exists()
        return self.folder.exists()

    @property
    def partial_folder(self) -> Path:
        """Where it is built. A bucket cannot rename, so there it is the store's own folder."""
        suffix = "" if is_remote(self.folder) else ".partial"
        return self.folder.with_name(self.folder.name + suffix)

    def take_apart(self) -> None:
        """Make a damaged store one that is being built, so that its good parts need not be made.

        The caller must hold its lock.
        """
        if not is_remote(self.folder):
            # What an earlier attempt left is no better than what the store still holds.
            shutil.rmtree(self.partial_folder, ignore_errors=True)
            os.rename(self.folder, self.partial_folder)
        (self.partial_folder / MANIFEST).unlink(missing_ok=True)

    @functools.cached_property
    def parts(self) -> list[shards.Part]:
        """The parts that it is made of; listing them asks the task's source for its examples."""
        variants = self.key["variants"]
        return shards.parts_of_store(self.task, self.split, variants, self.partial_folder)

    def manifest(self, config: Config) -> dict[str, Any]:
        """Return what its manifest says besides the counts of the parts."""
        from ift_jax.preparation.source_files import count_input_examples  # Imports TensorFlow.

        settings = {name: getattr(config.data, name) for name in _CONFIG_IN_MANIFEST}
        part = self.parts[0]
        return settings | {
            "task": self.task.name,
            "group": getattr(self.task.source, "group", ""),
            "cluster": getattr(self.task.source, "cluster", ""),
            "split": self.split,
            "shards": part.shards * part.files,
            "rows": getattr(self.task.source, "shape", ""),
            "input_examples": count_input_examples(self.task, self.split),
            "preprocessors": len(self.task.preprocessors),
            "architecture": config.model.architecture,
            "format": dataclasses.asdict(config.format),
            "key": self.key,
        }


def wanted_stores(
    config: Config,
    tasks: Sequence["seqio.Task"],
    split: str,
    formatter: ExampleFormatter,
    modules_digest: str,
) -> list[WantedStore]:
    """Return the store of each task.

    Args:
        config: The run's config.
        tasks: Tasks that have the split.
        split: The split.
        formatter: Encodes the examples; its fingerprint covers template, tokenizer and lengths.
        modules_digest: A hash of the modules that register the tasks.

    Raises:
        UserError: The data of a task is not on this machine, or a task cannot be read with the
            run's lengths.
    """
    from ift_jax.preparation.sequence_length import sequence_length
    from ift_jax.preparation.source_files import source_fingerprint

    shared = {
        "format_version": FORMAT_VERSION,
        "our_code": fingerprints.our_code(),
        "task_modules": modules_digest,
        "formatter": formatter.fingerprint,
        "seed": config.seed,
        "variants": config.data.variants,
    }
    store_dir = as_path(config.data.store_dir)
    stores = []
    for task in tasks:
        source = source_fingerprint(task, split)
        key = shared | {"task": task.name, "split": split, "source": source}
        if lengths := sequence_length(task, formatter.architecture, formatter.limits):
            key["sequence_length"] = lengths
        folder = store_dir / f"{task.name}-{split}-{json_digest(key)[:12]}"
        stores.append(WantedStore(task, split, folder, key))
    return stores
