"""The sampling defaults of a released model: `generation_config.json`.

A finetuned model keeps those of the model that it started from. They are not read when this package
generates; its own flags decide.
"""

import os
from collections.abc import Mapping
from typing import Any

from ift_jax.io.json_reader import read_json_object
from ift_jax.io.typed_fields import (
    FLAG,
    NOT_NEGATIVE,
    NULL,
    NUMBER,
    POSITIVE,
    TOKEN_ID,
    TOKEN_IDS,
    Kind,
    TypedFields,
    whole,
)

FILE = "generation_config.json"

# Written anew by an export, from the tokenizer and the chat template of the run.
TOKEN_FIELDS: Mapping[str, Kind] = {
    "bos_token_id": TOKEN_ID | NULL,
    "eos_token_id": TOKEN_IDS | NULL,
    "pad_token_id": TOKEN_ID | NULL,
    "decoder_start_token_id": TOKEN_IDS | NULL,
}
# Notes of the library that wrote the file.
_NOTES = ("_from_model_config", "transformers_version")
_COUNT = whole(0, 2**31 - 1)
_KINDS: Mapping[str, Kind] = {
    "do_sample": FLAG,
    "early_stopping": FLAG,
    "length_penalty": NUMBER,
    "max_length": _COUNT,
    "max_new_tokens": _COUNT,
    "min_length": _COUNT,
    "min_new_tokens": _COUNT,
    "min_p": NOT_NEGATIVE,
    "no_repeat_ngram_size": _COUNT,
    "num_beams": _COUNT,
    "num_return_sequences": _COUNT,
    "presence_penalty": NUMBER,
    "repetition_penalty": POSITIVE,
    "temperature": NOT_NEGATIVE,
    "top_k": _COUNT,
    "top_p": NOT_NEGATIVE,
    "typical_p": NOT_NEGATIVE,
    "use_cache": FLAG,
}


def read_generation_config(folder: str) -> TypedFields:
    """Return the fields of the file in a folder; none if there is no such file.

    Raises:
        UserError: The file is no JSON object, or a field that is known has a wrong type.
    """
    path = os.path.join(folder, FILE)
    fields = TypedFields(read_json_object(path) if os.path.exists(path) else {}, path)
    for name, kind in {**TOKEN_FIELDS, **_KINDS}.items():
        fields.get(name, kind | NULL, None)
    return fields


def sampling_defaults(fields: TypedFields) -> dict[str, Any]:
    """Return the fields that say how to generate: all but ids of tokens and notes."""
    return {
        name: value
        for name, value in fields.raw.items()
        if name not in TOKEN_FIELDS and name not in _NOTES
    }
