"""The files of a tokenizer in a Hugging Face folder, and the token ids in its configs."""

from collections.abc import Sequence
from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.sentencepiece_json import to_tokenizer_json
from ift_jax.io.json_reader import parse_json
from ift_jax.models.model import Model
from ift_jax.text.tokenizers.base import Tokenizer
from ift_jax.text.tokenizers.byt5 import ByT5Tokenizer
from ift_jax.text.tokenizers.sentencepiece import SentencePieceTokenizer


def tokenizer_files(
    tokenizer: Tokenizer, model: Model, template: str, max_length: int
) -> dict[str, Any]:
    """Return the tokenizer's own files and those that `transformers` wants beside them.

    Args:
        tokenizer: The tokenizer.
        model: The model that it belongs to.
        template: The text of the chat template; "": none is written.
        max_length: The positions of a model whose config has no bound; 0: unknown.

    Returns:
        The name of each file -> its bytes, or a value to be written as JSON.
    """
    files: dict[str, Any] = dict(tokenizer.files)
    special_ids = {"eos": tokenizer.eos_id, "pad": tokenizer.pad_id, "bos": tokenizer.bos_id}
    special_tokens: dict[str, Any] = {
        f"{name}_token": tokenizer.decode([token], keep_special=True)
        for name, token in special_ids.items()
        if token is not None
    }
    if isinstance(tokenizer, SentencePieceTokenizer):
        # T5's encoder appends EOS; a decoder's template writes its own.
        is_decoder = isinstance(model.config, DecoderConfig)
        eos = None if is_decoder else (special_tokens["eos_token"], tokenizer.eos_id)
        text = to_tokenizer_json(tokenizer, eos)
        files["tokenizer.json"] = text.encode()
    if isinstance(tokenizer, ByT5Tokenizer):
        fields = tokenizer.config()
    else:
        # tokenizer_config.json says everything that this older file does.
        given = parse_json(files.pop("special_tokens_map.json", b"{}"), "special_tokens_map.json")
        unknown = parse_json(files["tokenizer.json"], "tokenizer.json")["model"].get("unk_token")
        if unknown and "unk_token" not in given:
            special_tokens["unk_token"] = unknown
        fields = {**given, **special_tokens, "tokenizer_class": "PreTrainedTokenizerFast"}
    fields["clean_up_tokenization_spaces"] = False
    if length := getattr(model.config, "max_length", 0) or max_length:
        fields["model_max_length"] = length
    files["tokenizer_config.json"] = fields
    if template:
        files["chat_template.jinja"] = template.encode()
    return files


def token_ids(tokenizer: Tokenizer, model: Model, stop_ids: Sequence[int] = ()) -> dict[str, Any]:
    """Return the token ids of a config.json or generation_config.json.

    Args:
        tokenizer: The tokenizer.
        model: The model that it belongs to.
        stop_ids: The tokens that end an answer; none: EOS alone.
    """
    ends = sorted(set(stop_ids)) or [tokenizer.eos_id]
    ids: dict[str, Any] = {
        "eos_token_id": ends[0] if len(ends) == 1 else ends,
        "pad_token_id": tokenizer.pad_id,
    }
    if tokenizer.bos_id is not None:
        ids["bos_token_id"] = tokenizer.bos_id
    if not isinstance(model.config, DecoderConfig):
        ids["decoder_start_token_id"] = model.config.decoder_start_id
    return ids
