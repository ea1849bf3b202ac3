"""Writing a loaded model as a Hugging Face folder."""

from ift_jax.checkpoint.load_model import LoadedModel
from ift_jax.checkpoint.model_source import ModelSource
from ift_jax.errors import UserError
from ift_jax.interop.hugging_face_export import export
from ift_jax.interop.sample_texts import CONVERSATION
from ift_jax.text.prompts import PromptFormatter
from ift_jax.text.records import Message


def export_model(
    source: ModelSource,
    loaded: LoadedModel,
    output: str,
    *,
    dtype: str = "source",
    shard_bytes: int = 5 * 10**9,
    card: str = "",
) -> tuple[str, ...]:
    """Write weights, tokenizer, chat template and generation settings; adapters are merged.

    Args:
        source: Where the model came from.
        loaded: The model.
        output: The folder to make.
        dtype: "float32", "bfloat16", "float16", or "source": as the model was released.
        shard_bytes: The largest size of a file of weights.
        card: The text of the model card (`ift_jax.report.card`); "": none is written.

    Returns:
        What a user should know about the folder, in sentences.

    Raises:
        UserError: The folder exists or cannot be written, no family has such a model, or the folder
            does not read back as the model.
    """
    formatter = PromptFormatter.from_config(loaded.config, loaded.tokenizer)
    return export(
        loaded.model,
        loaded.params,
        loaded.tokenizer,
        output,
        template=formatter.template_source,
        dtype=dtype,
        source_dtypes=source.dtypes(),
        model_type=source.model_type(),
        stop_ids=(*formatter.stop_ids, *loaded.config.evaluation.stop_ids),
        shard_bytes=shard_bytes,
        max_length=loaded.config.data.max_length,
        generation=source.sampling_defaults(),
        chat_ids=sample_prompt(formatter),
        card=card,
    )


def sample_prompt(formatter: PromptFormatter) -> list[int] | None:
    """Return the prompt ids of a conversation, with which an export compares what it wrote.

    None for an encoder, which reads no template in `transformers`, and for a template that takes no
    such conversation.
    """
    if formatter.architecture != "decoder":
        return None
    messages = [Message(role, text) for role, text in CONVERSATION]
    try:
        return formatter.prompt(messages).tolist()
    except UserError:
        return None
