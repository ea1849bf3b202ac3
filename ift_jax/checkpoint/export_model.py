"""Writing a loaded model as a Hugging Face folder."""

from ift_jax.checkpoint.load_model import LoadedModel
from ift_jax.checkpoint.model_source import ModelSource
from ift_jax.interop.hugging_face_export import export
from ift_jax.text.prompts import PromptFormatter


def export_model(
    source: ModelSource,
    loaded: LoadedModel,
    output: str,
    *,
    dtype: str = "source",
    shard_bytes: int = 5 * 10**9,
) -> None:
    """Write weights, tokenizer, chat template and generation settings; adapters are merged.

    Args:
        source: Where the model came from.
        loaded: The model.
        output: The folder to make.
        dtype: "float32", "bfloat16", "float16", or "source": as the model was released.
        shard_bytes: The largest size of a file of weights.

    Raises:
        UserError: The folder exists or cannot be written, or no family has such a model.
    """
    formatter = PromptFormatter.from_config(loaded.config, loaded.tokenizer)
    export(
        loaded.model,
        loaded.params,
        loaded.tokenizer,
        output,
        template=formatter.template_source,
        dtype=dtype,
        source_dtypes=source.dtypes(),
        stop_ids=(*formatter.stop_ids, *loaded.config.evaluation.stop_ids),
        shard_bytes=shard_bytes,
        max_length=loaded.config.data.max_length,
    )
