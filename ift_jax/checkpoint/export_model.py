"""Writing a loaded model as a Hugging Face folder or a GGUF file."""

import os

from ift_jax.checkpoint.load_model import LoadedModel
from ift_jax.checkpoint.model_source import ModelSource
from ift_jax.config.schema import FormatConfig
from ift_jax.errors import UserError
from ift_jax.interop.gguf_export import SUFFIX, export_gguf
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
        chat_ids=sample_prompt(formatter, loaded.config.format),
        card=card,
    )


def export_model_as_gguf(
    source: ModelSource, loaded: LoadedModel, output: str, *, dtype: str = "source"
) -> None:
    """Write weights, tokenizer, chat template and sampling defaults; adapters are merged.

    Args:
        source: Where the model came from.
        loaded: The model.
        output: The file to make.
        dtype: "float32", "bfloat16", "float16", "q8_0", or "source": as the model was released.

    Raises:
        UserError: The package gguf is not installed, a file cannot hold such a model or tokenizer,
            or the file does not read back as the model.
        WriteError: The file cannot be written.
    """
    formatter = PromptFormatter.from_config(loaded.config, loaded.tokenizer)
    export_gguf(
        loaded.model,
        loaded.params,
        loaded.tokenizer,
        output,
        template=formatter.template_source,
        stop_ids=(*formatter.stop_ids, *loaded.config.evaluation.stop_ids),
        dtype=dtype,
        source_dtypes=source.dtypes(),
        max_length=loaded.config.data.max_length,
        generation=source.sampling_defaults(),
        model_type=source.model_type(),
        name=os.path.basename(output).removesuffix(SUFFIX),
    )


def sample_prompt(formatter: PromptFormatter, fmt: FormatConfig) -> list[int] | None:
    """Return the prompt ids of a conversation, with which an export compares what it wrote.

    None for an encoder whose input ends with EOS, which `transformers` does not write behind a
    template, and for a template that takes no such conversation.
    """
    if formatter.architecture != "decoder" and fmt.input_eos:
        return None
    messages = [Message(role, text) for role, text in CONVERSATION]
    try:
        return formatter.prompt(messages).tolist()
    except UserError:
        return None
