"""The byte-level BPE tokenizer inside a GGUF file, as the files of a Hugging Face folder."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import tokenizers

from ift_jax.errors import UserError
from ift_jax.io.typed_fields import (
    ANYTHING,
    FLAG,
    TEXT,
    TEXTS,
    TOKEN_ID,
    Kind,
    TypedFields,
    list_of,
    one_of,
    shown,
    whole,
)
from ift_jax.text.tokenizers.chat_template_files import one_template
from ift_jax.text.tokenizers.pretoken_cache import SPLITS

# tokenizer.ggml.token_type of a token.
CONTROL, USER_DEFINED = 3, 4

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


# Fields of the tokenizer that nothing reads: they change no id of a byte-level BPE.
_IGNORED: Mapping[str, Kind] = {
    "scores": ANYTHING,
    "token_type_count": ANYTHING,
    "add_eos_token": FLAG,
    "add_sep_token": FLAG,
    "add_space_prefix": FLAG,  # llama.cpp reads it for SentencePiece models alone.
    "remove_extra_whitespaces": FLAG,
    "precompiled_charsmap": ANYTHING,
}
# Tokens that nothing reads; their fields end in "_token_id".
_IGNORED_TOKENS = (
    "seperator", "separator", "mask", "cls", "fim_pre", "fim_suf", "fim_mid", "fim_pad", "fim_rep",
    "fim_sep", "prefix", "suffix", "middle",
)  # fmt: skip
# Our names of the special tokens -> theirs.
SPECIAL = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
# The tokens that end an answer, as llama.cpp has them.
ENDS = ("eos", "eot", "eom")
_READ = (
    {"model", "pre", "tokens", "merges", "token_type", "add_bos_token"}
    | {f"{name}_token_id" for name in (*SPECIAL.values(), *ENDS)}
)  # fmt: skip
PREFIX = "tokenizer.ggml."


def tokenizer_files(fields: TypedFields, n_rows: int) -> dict[str, bytes]:
    """Return the tokenizer's files: name -> content.

    Args:
        fields: The fields of the GGUF file.
        n_rows: The rows of the table of embeddings, one for each token.

    Raises:
        UserError: It is another kind of tokenizer, or a field is unknown or has a value that is
            not supported.
    """

    def get(name: str, kind: Kind, *default: Any) -> Any:
        return fields.get(PREFIX + name, kind, *default)

    get("model", one_of(("gpt2",)))
    pre = PRE_TOKENIZERS[get("pre", one_of(PRE_TOKENIZERS))]
    tokens = get("tokens", TEXTS)
    if len(tokens) != n_rows:
        raise fields.refusal(
            f"the length of {PREFIX}tokens", len(tokens), f"the {n_rows} embeddings"
        )
    definition = _definition(tokens, get("merges", TEXTS), pre)
    token_ids = whole(0, n_rows - 1)
    _check_names(fields, token_ids)
    types = get("token_type", list_of(whole()))
    if len(types) != n_rows:
        raise fields.refusal(
            f"the length of {PREFIX}token_type", len(types), f"that of the {n_rows} tokens"
        )
    try:
        tokenizer = tokenizers.Tokenizer.from_str(json.dumps(definition))
    except Exception as error:  # `tokenizers` raises bare Exception.
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{fields.where}: {PREFIX}tokens and merges: {reason}") from error
    if tokenizer.get_vocab_size() != n_rows:
        raise UserError(f"{fields.where}: {PREFIX}tokens: a token occurs twice")
    _add_tokens(tokenizer, tokens, types)
    names: dict[str, Any] = {"add_bos_token": get("add_bos_token", FLAG, False)}
    for ours, theirs in SPECIAL.items():
        default = () if ours == "eos" else (None,)  # Without an EOS no answer would end.
        token_id = get(f"{theirs}_token_id", token_ids, *default)
        if token_id is not None:
            names[f"{ours}_token"] = tokens[token_id]
    files = {
        "tokenizer.json": tokenizer.to_str(),
        "tokenizer_config.json": json.dumps(names, ensure_ascii=False),
    }
    templates = {"default": fields.get("tokenizer.chat_template", TEXT, "")}
    for name in fields.get("tokenizer.chat_templates", TEXTS, ()):
        templates[name] = fields.get(f"tokenizer.chat_template.{name}", TEXT, "")
    if templates := {name: template for name, template in templates.items() if template}:
        files["chat_template.jinja"] = one_template(templates)
    return {name: text.encode() for name, text in files.items()}


def stop_ids(fields: TypedFields) -> tuple[int, ...]:
    """Return the ids of the tokens that end an answer, once each."""
    ids = [fields.get(f"{PREFIX}{name}_token_id", TOKEN_ID, None) for name in ENDS]
    return tuple(sorted({i for i in ids if i is not None}))


def _check_names(fields: TypedFields, token_ids: Kind) -> None:
    """Refuse a field of the tokenizer that is neither read nor known to change no id."""
    ignored = {**_IGNORED, **{f"{name}_token_id": token_ids for name in _IGNORED_TOKENS}}
    for full_name, value in fields.raw.items():
        name = full_name.removeprefix(PREFIX)
        if name == full_name or name in _READ:
            continue
        if name not in ignored:
            raise UserError(f"{fields.where}: {full_name[:60]} = {shown(value)} is not supported")
        fields.check(full_name, value, ignored[name])


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
    control = [token for token, kind in by_type if kind == CONTROL]
    tokenizer.add_special_tokens(
        [tokenizers.AddedToken(token, special=True, normalized=False) for token in control]
    )
    user_defined = [token for token, kind in by_type if kind == USER_DEFINED]
    tokenizer.add_tokens(
        [tokenizers.AddedToken(token, special=False, normalized=False) for token in user_defined]
    )
