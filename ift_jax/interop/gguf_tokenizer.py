"""The byte-level BPE tokenizer inside a GGUF file, as the files of a Hugging Face folder."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import tokenizers

from ift_jax.errors import UserError
from ift_jax.text.tokenizers.pretoken_cache import SPLITS

# tokenizer.ggml.token_type of a token.
_CONTROL, _USER_DEFINED = 3, 4

_DIGITS_ONE_BY_ONE = {"type": "Digits", "individual_digits": True}


class PreTokenizer(NamedTuple):
    """How a kind of tokenizer prepares a text for BPE.

    Attributes:
        split: What splits the text into words before bytes become characters; None: only the
            ByteLevel step does, by GPT-2's pattern.
        splits_by_gpt2: Whether the ByteLevel step splits by GPT-2's pattern.
        whole_words: Whether a word that is in the vocabulary becomes one token, whatever the
            merges say.
        normalizer: What is done to the text first.
    """

    split: Mapping[str, Any] | None
    splits_by_gpt2: bool
    whole_words: bool = False
    normalizer: Mapping[str, Any] | None = None


# By tokenizer.ggml.pre.
PRE_TOKENIZERS: Mapping[str, PreTokenizer] = {
    "gpt-2": PreTokenizer(None, splits_by_gpt2=True),
    # Digits are split off before GPT-2's pattern, so a space before a number stands alone.
    "smollm": PreTokenizer(_DIGITS_ONE_BY_ONE, splits_by_gpt2=True),
    # GPT-4's kind of pattern, which takes three digits at a time.
    "llama-bpe": PreTokenizer(SPLITS[3], splits_by_gpt2=False, whole_words=True),
    "qwen2": PreTokenizer(SPLITS[1], splits_by_gpt2=False, normalizer={"type": "NFC"}),
}


def tokenizer_files(metadata: Mapping[str, Any], path: str) -> dict[str, bytes]:
    """Return the tokenizer's files: name -> content.

    Args:
        metadata: The fields of the GGUF file.
        path: What messages call the file.

    Raises:
        UserError: It is another kind of tokenizer.
    """

    def get(name: str, default: Any = None) -> Any:
        return metadata.get(f"tokenizer.ggml.{name}", default)

    if get("model") != "gpt2" or get("pre") not in PRE_TOKENIZERS:
        raise UserError(
            f"{path}: tokenizer.ggml.model is {get('model')!r} with pre {get('pre')!r}; expected "
            f"'gpt2' with one of {', '.join(PRE_TOKENIZERS)}"
        )
    tokens = get("tokens")
    definition = _definition(tokens, get("merges"), PRE_TOKENIZERS[get("pre")])
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(definition))
    _add_tokens(tokenizer, tokens, get("token_type"))
    fields: dict[str, Any] = {"add_bos_token": bool(get("add_bos_token", False))}
    for ours, theirs in {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}.items():
        token_id = get(f"{theirs}_token_id")
        if token_id is not None:
            fields[f"{ours}_token"] = tokens[token_id]
    files = {
        "tokenizer.json": tokenizer.to_str(),
        "tokenizer_config.json": json.dumps(fields, ensure_ascii=False),
    }
    if template := metadata.get("tokenizer.chat_template"):
        files["chat_template.jinja"] = template
    return {name: text.encode() for name, text in files.items()}


def _definition(tokens: list[str], merges: list[str], pre: PreTokenizer) -> dict[str, Any]:
    """Return the content of a tokenizer.json without added tokens."""
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": pre.splits_by_gpt2,
    }
    steps = [byte_level] if pre.split is None else [pre.split, byte_level]
    return {
        "model": {
            "type": "BPE",
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": merges,
            "ignore_merges": pre.whole_words,
        },
        "normalizer": pre.normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "decoder": byte_level,
    }


def _add_tokens(tokenizer: tokenizers.Tokenizer, tokens: list[str], types: list[int]) -> None:
    """Mark control tokens as special, and user-defined tokens as added."""
    by_type = list(zip(tokens, types, strict=True))
    control = [token for token, kind in by_type if kind == _CONTROL]
    tokenizer.add_special_tokens(
        [tokenizers.AddedToken(token, special=True, normalized=False) for token in control]
    )
    user_defined = [token for token, kind in by_type if kind == _USER_DEFINED]
    tokenizer.add_tokens(
        [tokenizers.AddedToken(token, special=False, normalized=False) for token in user_defined]
    )
