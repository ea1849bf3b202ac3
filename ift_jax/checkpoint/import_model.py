"""A released model becomes a workdir."""

import dataclasses
import os

import jax

from ift_jax.checkpoint.manager import Checkpoints
from ift_jax.checkpoint.model_source import DTYPES_FILE, TOKENIZER, open_model_source
from ift_jax.checkpoint.workdir_model import LoadedModel, load_model, save_description
from ift_jax.errors import UserError
from ift_jax.io.folders import new_folder, write_files
from ift_jax.io.paths import Workdir, absolute, is_remote, place


def import_model(path: str, workdir: str) -> LoadedModel:
    """Writes a workdir as of a run at step 0: config, tokenizer, parameters.

    From a Hugging Face folder or a `.gguf` file; the workdir appears when it is whole.

    Raises:
        UserError: the workdir exists and is not empty, or the model cannot be used.
    """
    home = Workdir(workdir, writes=True)
    if is_remote(workdir) and place(workdir).exists():
        raise UserError(f"--workdir {workdir}: is not empty; name a new folder")
    with new_folder(home.local, "--workdir") as partial:
        source = open_model_source(path)
        if source.is_run:
            raise UserError(f"{path}: is a workdir already")
        trained = load_model(source)
        own = os.path.join(absolute(workdir), TOKENIZER)
        tokenizer = dataclasses.replace(trained.config.tokenizer, path=own)
        config = dataclasses.replace(trained.config, tokenizer=tokenizer)
        save_description(partial, config, trained.tokenizer)
        write_files(partial, {DTYPES_FILE: dict(source.dtypes())})
        largest = max(leaf.nbytes for leaf in jax.tree.leaves(trained.params))
        checkpoints = Checkpoints(workdir if is_remote(workdir) else partial, in_flight=2 * largest)
        checkpoints.save(0, {"params": trained.params})
        checkpoints.close()
    home.push()
    return dataclasses.replace(trained, config=config)
