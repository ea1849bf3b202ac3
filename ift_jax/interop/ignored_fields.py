"""Fields of a Hugging Face `config.json` that change no logits, and what they may hold.

They belong to training, to generation or to other tasks' heads, or they are notes of the library
that wrote the file. Their types are checked all the same: a file that holds another type is not
what `transformers` would read. Each may also be null.
"""

from collections.abc import Mapping

from ift_jax.io.typed_fields import (
    ANYTHING,
    FLAG,
    NUMBER,
    OBJECT,
    TEXT,
    TEXTS,
    TOKEN_ID,
    TOKEN_IDS,
    Kind,
    one_of,
    whole,
)

_FRACTION = Kind("a number from 0 to 1", lambda value: NUMBER.accepts(value) and 0 <= value <= 1)
# torch's names of floating-point types, which weights may have on disk.
_DTYPE = one_of(
    (
        "float32", "float16", "bfloat16", "float64", "float", "half", "double",
        "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz",
    )
)  # fmt: skip

IGNORED_FIELDS: Mapping[str, Kind] = {
    "_attn_implementation_autoset": ANYTHING,
    "_name_or_path": ANYTHING,
    "architectures": TEXTS,
    "attention_dropout": NUMBER,
    "attn_implementation": TEXT,
    "bos_token_id": TOKEN_ID,
    "cache_implementation": ANYTHING,
    "chunk_size_feed_forward": whole(),
    "classifier_dropout": NUMBER,
    "decoder_start_token_id": TOKEN_IDS,
    "dense_act_fn": ANYTHING,
    "dropout_rate": NUMBER,
    "dtype": _DTYPE,
    "eos_token_id": TOKEN_IDS,
    "gradient_checkpointing": ANYTHING,
    "id2label": OBJECT,
    "initializer_factor": NUMBER,
    "initializer_range": _FRACTION,
    "is_decoder": FLAG,
    "is_encoder_decoder": FLAG,
    "is_gated_act": ANYTHING,
    "is_llama_config": ANYTHING,
    "label2id": OBJECT,
    "model_type": TEXT,
    "n_positions": ANYTHING,
    "output_attentions": FLAG,
    "output_hidden_states": FLAG,
    "output_past": ANYTHING,
    "pad_token_id": TOKEN_ID,
    "pretraining_tp": whole(),
    "problem_type": TEXT,
    "return_dict": FLAG,
    "task_specific_params": ANYTHING,
    "tokenizer_class": TEXT,
    "torch_dtype": _DTYPE,
    "transformers.js_config": ANYTHING,
    "transformers_version": TEXT,
    "use_cache": FLAG,
}
