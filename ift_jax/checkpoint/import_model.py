"""A released model becomes the workdir of a run at step 0."""

from ift_jax.checkpoint.lineage import Ingredient, Origin
from ift_jax.checkpoint.load_model import LoadedModel, load_model
from ift_jax.checkpoint.new_workdir import FirstModel, write_first_checkpoint
from ift_jax.checkpoint.open_model import WorkdirSource, open_model_source
from ift_jax.errors import UserError


def import_model(path: str, workdir: str) -> LoadedModel:
    """Write config, tokenizer and parameters into a new workdir.

    The workdir appears only when it is complete.

    Args:
        path: A Hugging Face folder or a `.gguf` file.
        workdir: The folder to make, local or in a bucket.

    Raises:
        UserError: The workdir exists and is not empty, or the model cannot be used.
    """

    def read() -> FirstModel:
        source = open_model_source(path)
        if isinstance(source, WorkdirSource):
            raise UserError(f"{path}: is a workdir already")
        return FirstModel(
            load_model(source), source.dtypes(), source.sampling_defaults(), source.model_type()
        )

    origin = Origin.of("import", [Ingredient(path, 0, 1.0)])
    return write_first_checkpoint(workdir, read, origin)
