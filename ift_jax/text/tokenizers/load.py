"""Tokenizers: one small interface, SentencePiece and `tokenizer.json` behind it."""

import glob
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ift_jax.config.schema import Config
from ift_jax.errors import UserError
from ift_jax.io.files import read_template_file
from ift_jax.io.paths import fetch, is_remote, place
from ift_jax.text.tokenizers.base import Tokenizer
from ift_jax.text.tokenizers.hugging_face import HuggingFaceTokenizer
from ift_jax.text.tokenizers.sentencepiece import SentencePieceTokenizer

__all__ = ["HuggingFaceTokenizer", "SentencePieceTokenizer", "Tokenizer", "load_tokenizer"]


def load_tokenizer(path: str, extra_ids: int = 0, added_tokens: Sequence[str] = ()) -> Tokenizer:
    """Reads a tokenizer, with what the files beside it say of it.

    `path` is a SentencePiece `.model`, a `tokenizer.json`, or a folder that holds one of the two
    (`tokenizer.json` is preferred, as in `transformers`). `extra_ids` are T5's sentinels to add to
    a SentencePiece model; `added_tokens` become special, with new ids after the last where it lacks
    them.

    Raises:
        UserError: no such file, none in the folder or several, or one that cannot be used.
    """
    if is_remote(path):
        named, is_file = place(path), path.endswith((".model", ".json"))
        with tempfile.TemporaryDirectory() as copy:
            fetch(str(named.parent if is_file else named), copy)
            local = os.path.join(copy, named.name if is_file else "")
            try:
                return load_tokenizer(local, extra_ids, added_tokens)
            except UserError as error:
                raise UserError(str(error).replace(local, path)) from error
    file = _find(path)
    folder = os.path.dirname(file)
    special = _read(os.path.join(folder, "special_tokens_map.json"))
    config = _read(os.path.join(folder, "tokenizer_config.json"))
    template = _chat_template(folder, config)
    if file.endswith(".model"):
        kept = _read(os.path.join(folder, "added_tokens.json"))
        added_tokens = (*sorted(kept, key=kept.__getitem__), *added_tokens)
        with open(file, "rb") as model:
            tokenizer = SentencePieceTokenizer(
                model.read(), extra_ids, file, added_tokens=added_tokens, chat_template=template
            )
        for token, i in kept.items():
            if tokenizer.special_tokens[token] != i:
                raise UserError(
                    f"{os.path.join(folder, 'added_tokens.json')}: {token!r} is {i!r}; expected"
                    f" {tokenizer.special_tokens[token]} with {extra_ids} extra ids"
                )
        return tokenizer
    if extra_ids:
        raise UserError(
            f"tokenizer.extra_ids = {extra_ids}: expected 0, {file} lists its own extra ids"
        )
    try:
        with open(file, encoding="utf-8") as definition:
            text = definition.read()
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not a tokenizer.json ({error})") from error
    names: dict[str, str] = {}
    for key, token in (*special.items(), *config.items()):
        content = token.get("content") if isinstance(token, dict) else token
        if key.endswith("_token") and isinstance(content, str) and content:
            names[key] = content
    return HuggingFaceTokenizer(
        text, names, file, added_tokens=added_tokens, chat_template=template
    )


def _read(path: str) -> dict[str, Any]:
    if not os.path.exists(path):
        return {}
    try:
        with open(path, encoding="utf-8") as stream:
            return dict(json.load(stream))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: expected a JSON object ({error})") from error


def _chat_template(folder: str, fields: dict[str, Any]) -> str:
    """The chat template in a tokenizer's folder; of several, the one named "default"."""
    path = os.path.join(folder, "chat_template.jinja")
    if os.path.exists(path):
        return read_template_file(path)
    template = fields.get("chat_template") or ""
    if isinstance(template, list):
        template = {t["name"]: t["template"] for t in template}.get("default", "")
    return template


def _find(path: str) -> str:
    if os.path.isdir(path):
        file = os.path.join(path, "tokenizer.json")
        models = sorted(glob.glob(os.path.join(glob.escape(path), "*.model")))
        if os.path.exists(file) or len(models) == 1:
            return file if os.path.exists(file) else models[0]
        found = f"{len(models)} .model files" if models else "neither"
        raise UserError(f"{path}: expected a tokenizer.json or one .model file, found {found}")
    if not os.path.isfile(path):
        raise UserError(f"tokenizer.path: no file or folder {path!r}")
    if not path.endswith((".model", ".json")):
        raise UserError(f"{path}: expected a SentencePiece .model or a tokenizer.json")
    return path


def load_run_tokenizer(config: Config, path: str) -> Tokenizer:
    """The tokenizer in a file, as the run uses it."""
    section = config.tokenizer
    return load_tokenizer(path, section.extra_ids, section.added_tokens)


def tokenizer_files(path: str) -> list[str]:
    """The absolute paths of the files that `load_tokenizer(path)` may read."""
    if is_remote(path):
        return []  # One trained here is named by what is in it; of a given one that is asked.
    given = Path(path).absolute()
    folder, files = (given, given.glob("*.model")) if given.is_dir() else (given.parent, [given])
    names = ("tokenizer*.json", "special_tokens_map.json", "added_tokens.json")
    beside = [file for name in (*names, "chat_template.jinja") for file in folder.glob(name)]
    return sorted({str(file) for file in (*files, *beside)})
