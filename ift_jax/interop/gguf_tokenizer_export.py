"""A byte-level BPE tokenizer as the fields of a GGUF file; `gguf_tokenizer` reads them."""

from collections.abc import Mapping, Sequence
from typing import Any

from ift_jax.errors import UserError
from ift_jax.interop.gguf_tokenizer import (
    CONTROL,
    ENDS,
    PRE_TOKENIZERS,
    PREFIX,
    SPECIAL,
    USER_DEFINED,
    PreTokenizer,
)
from ift_jax.io.json_reader import parse_json
from ift_jax.text.tokenizers.base import Tokenizer

_NORMAL, _UNUSED = 1, 5  # tokenizer.ggml.token_type, beside those that are read.


def tokenizer_fields(
    tokenizer: Tokenizer, n_rows: int, stop_ids: Sequence[int], template: str
) -> dict[str, Any]:
    """Return the fields of a tokenizer, and of the chat template.

    Args:
        tokenizer: The tokenizer.
        n_rows: The rows of the table of embeddings. Rows without a token get one that no text has.
        stop_ids: The tokens that end an answer, beside EOS.
        template: The text of the chat template; "": there is none.

    Raises:
        UserError: A file has no place for the tokenizer, which is of another kind, or for the
            tokens that end an answer.
    """
    if "tokenizer.json" not in tokenizer.files:
        raise _refusal("it is a SentencePiece model")
    definition = parse_json(tokenizer.files["tokenizer.json"], "tokenizer.json")
    pre = _pre_tokenizer(definition)
    fields: dict[str, Any] = {
        "model": "gpt2",
        "pre": pre,
        **_token_lists(definition, n_rows),
        "merges": _merges(definition),
        "add_bos_token": tokenizer.adds_bos,
    }
    for role, theirs in SPECIAL.items():
        token_id = _special_id(tokenizer, definition, role)
        if token_id is not None:
            fields[f"{theirs}_token_id"] = token_id
    others = sorted(set(stop_ids) - {tokenizer.eos_id})
    names = [f"{name}_token_id" for name in ENDS if name != "eos"]
    if len(others) > len(names):
        raise UserError(
            f"--output: answers end with {len(others)} tokens beside EOS "
            f"({', '.join(map(str, others[:5]))}); a GGUF file has a place for {len(names)}"
        )
    fields |= dict(zip(names, others, strict=False))
    fields = {f"{PREFIX}{name}": value for name, value in fields.items()}
    return fields | ({"tokenizer.chat_template": template} if template else {})


def _merges(definition: Mapping[str, Any]) -> list[str]:
    """Return the merges, which older files have as strings and newer ones as pairs."""
    merges = definition["model"]["merges"]
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]


def _special_id(tokenizer: Tokenizer, definition: Mapping[str, Any], role: str) -> int | None:
    """Return the id of BOS, EOS, padding or the unknown token; None if there is none."""
    if role != "unk":
        token_id: int | None = getattr(tokenizer, f"{role}_id")
        return token_id
    unknown = tokenizer.special_tokens_map.get("unk_token") or definition["model"].get("unk_token")
    return tokenizer.special_tokens.get(unknown) if unknown else None


def _pre_tokenizer(definition: Mapping[str, Any]) -> str:
    """Return the name by which llama.cpp knows how a text is prepared for BPE.

    Raises:
        UserError: It has no name here.
    """
    model = definition["model"]
    if model["type"] != "BPE":
        raise _refusal(f"it is a model of type {model['type']}")
    pre_tokenizer = definition.get("pre_tokenizer") or {}
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    if not steps or steps[-1].get("type") != "ByteLevel":
        raise _refusal("its pre-tokenizer does not end with ByteLevel")
    byte_level = steps[-1]
    if len(steps) > 2 or byte_level.get("add_prefix_space"):
        raise _refusal("its pre-tokenizer has other steps than one split and ByteLevel")
    found = PreTokenizer(
        split=steps[0] if len(steps) == 2 else None,
        splits_by_gpt2=byte_level.get("use_regex", True),
        whole_words=bool(model.get("ignore_merges")),
        normalizer=definition.get("normalizer"),
    )
    for name, pre in PRE_TOKENIZERS.items():
        if pre == found:
            return name
    raise _refusal(
        f"its pre-tokenizer, normalizer and ignore_merges are those of none of "
        f"{', '.join(PRE_TOKENIZERS)}"
    )


def _token_lists(definition: Mapping[str, Any], n_rows: int) -> dict[str, list[Any]]:
    """Return the text and the type of each token."""
    tokens = {i: (token, _NORMAL) for token, i in definition["model"]["vocab"].items()}
    for added in definition["added_tokens"]:
        content = added["content"]
        if flags := [flag for flag in ("lstrip", "rstrip", "single_word") if added[flag]]:
            raise _refusal(f"its token {content!r} has the flag {flags[0]}")
        if added["normalized"] and definition.get("normalizer") and not content.isascii():
            raise _refusal(f"its token {content!r} is looked for in normalized text")
        tokens[added["id"]] = (content, CONTROL if added["special"] else USER_DEFINED)
    if (highest := max(tokens)) >= n_rows:
        raise _refusal(f"it has the id {highest}, and the model {n_rows} embeddings")
    rows = [tokens.get(i, (f"[PAD{i}]", _UNUSED)) for i in range(n_rows)]
    return {"tokens": [token for token, _ in rows], "token_type": [kind for _, kind in rows]}


def _refusal(why: str) -> UserError:
    return UserError(
        f"--output: a GGUF file cannot hold this tokenizer: {why}; expected a byte-level BPE as "
        "Llama 3, SmolLM2 and Qwen have it"
    )
