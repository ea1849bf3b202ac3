"""A released model becomes the workdir of a run at step 0."""

import dataclasses
import os

import jax

from ift_jax.checkpoint.load_model import LoadedModel, load_model
from ift_jax.checkpoint.manager import Checkpoints
from ift_jax.checkpoint.open_model import WorkdirSource, open_model_source
from ift_jax.checkpoint.run_description import (
    DTYPES_FILE,
    SAMPLING_FILE,
    TOKENIZER_FOLDER,
    save_description,
)
from ift_jax.errors import UserError
from ift_jax.io.folders import new_folder, write_files
from ift_jax.io.paths import Workdir, absolute, as_path, is_remote


def import_model(path: str, workdir: str) -> LoadedModel:
    """Write config, tokenizer and parameters into a new workdir.

    The workdir appears only when it is complete.

    Args:
        path: A Hugging Face folder or a `.gguf` file.
        workdir: The folder to make, local or in a bucket.

    Raises:
        UserError: The workdir exists and is not empty, or the model cannot be used.
    """
    home = Workdir(workdir, writes=True)
    if is_remote(workdir) and as_path(workdir).exists():
        raise UserError(f"--workdir {workdir}: is not empty; name a new folder")
    with new_folder(home.local, "--workdir") as partial:
        source = open_model_source(path)
        if isinstance(source, WorkdirSource):
            raise UserError(f"{path}: is a workdir already")
        loaded = load_model(source)
        own_tokenizer = dataclasses.replace(
            loaded.config.tokenizer, path=os.path.join(absolute(workdir), TOKENIZER_FOLDER)
        )
        config = dataclasses.replace(loaded.config, tokenizer=own_tokenizer)
        save_description(partial, config, loaded.tokenizer)
        released = {DTYPES_FILE: source.dtypes(), SAMPLING_FILE: source.sampling_defaults()}
        write_files(partial, {name: dict(values) for name, values in released.items()})
        largest_array = max(leaf.nbytes for leaf in jax.tree.leaves(loaded.params))
        checkpoints = Checkpoints(
            workdir if is_remote(workdir) else partial, in_flight=2 * largest_array
        )
        checkpoints.save(0, {"params": loaded.params})
        checkpoints.close()
    home.push()
    return dataclasses.replace(loaded, config=config)
