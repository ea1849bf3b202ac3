"""A model that no run trained becomes the workdir of a run at step 0."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from ift_jax.checkpoint.lineage import ORIGIN_FILE, Origin
from ift_jax.checkpoint.load_model import LoadedModel
from ift_jax.checkpoint.manager import Checkpoints
from ift_jax.checkpoint.run_description import (
    DTYPES_FILE,
    FAMILY_FILE,
    SAMPLING_FILE,
    TOKENIZER_FOLDER,
    save_description,
)
from ift_jax.errors import UserError
from ift_jax.io.folders import new_folder, write_files
from ift_jax.io.paths import Workdir, absolute, as_path, is_remote


class FirstModel(NamedTuple):
    """A model to write, and what its release says about it.

    Attributes:
        loaded: The model.
        dtypes: The dtype of each tensor as released (`ModelSource.dtypes`).
        sampling_defaults: How it is meant to be sampled (`ModelSource.sampling_defaults`).
        model_type: The family that it was released as (`ModelSource.model_type`).
    """

    loaded: LoadedModel
    dtypes: Mapping[str, str]
    sampling_defaults: Mapping[str, Any]
    model_type: str


def write_first_checkpoint(
    workdir: str, read: Callable[[], FirstModel], origin: Origin
) -> LoadedModel:
    """Write config, tokenizer and parameters into a new workdir, which appears when it is complete.

    Args:
        workdir: The folder to make, local or in a bucket.
        read: Reads the model; called when it is known that the folder can be made.
        origin: What the model was made from.

    Raises:
        UserError: The workdir exists and is not empty, or `read` raises it.
    """
    home = Workdir(workdir, writes=True)
    if is_remote(workdir) and as_path(workdir).exists():
        raise UserError(f"--workdir {workdir}: is not empty; name a new folder")
    with new_folder(home.local, "--workdir") as partial:
        loaded, dtypes, sampling_defaults, model_type = read()
        own_tokenizer = dataclasses.replace(
            loaded.config.tokenizer, path=os.path.join(absolute(workdir), TOKENIZER_FOLDER)
        )
        config = dataclasses.replace(loaded.config, tokenizer=own_tokenizer)
        save_description(partial, config, loaded.tokenizer)
        released: dict[str, Any] = {
            DTYPES_FILE: dict(dtypes),
            SAMPLING_FILE: dict(sampling_defaults),
            FAMILY_FILE: {"model_type": model_type},
            ORIGIN_FILE: origin.to_json(),
        }
        write_files(partial, released)
        largest_array = max(leaf.nbytes for leaf in jax.tree.leaves(loaded.params))
        checkpoints = Checkpoints(
            workdir if is_remote(workdir) else partial, in_flight=2 * largest_array
        )
        checkpoints.save(0, {"params": loaded.params})
        checkpoints.close()
    home.push()
    return dataclasses.replace(loaded, config=config)
