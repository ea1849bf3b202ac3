"""Tokenizers: one small interface, SentencePiece and `tokenizer.json` behind it."""

import glob
import os

from ift_jax.errors import UserError
from ift_jax.text.huggingface_tokenizer import HuggingFaceTokenizer, read_special_tokens
from ift_jax.text.sentencepiece_tokenizer import SentencePieceTokenizer, train_sentencepiece
from ift_jax.text.tokenizer_base import Tokenizer

__all__ = [
    "HuggingFaceTokenizer",
    "SentencePieceTokenizer",
    "Tokenizer",
    "load_tokenizer",
    "train_sentencepiece",
]


def load_tokenizer(path: str, extra_ids: int = 0) -> Tokenizer:
    """Reads a tokenizer.

    Args:
        path: a SentencePiece `.model`, a `tokenizer.json`, or a folder that holds one of the
            two (`tokenizer.json` is preferred, as in `transformers`).
        extra_ids: T5's sentinels to add to a SentencePiece model.

    Raises:
        UserError: no such file, none in the folder or several, or one that cannot be used.
    """
    file = _find(path)
    if file.endswith(".model"):
        with open(file, "rb") as model:
            return SentencePieceTokenizer(model.read(), extra_ids, name=file)
    if extra_ids:
        raise UserError(
            f"tokenizer.extra_ids = {extra_ids}: expected 0, {file} lists its own extra ids"
        )
    try:
        with open(file, encoding="utf-8") as definition:
            text = definition.read()
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not a tokenizer.json ({error})") from error
    return HuggingFaceTokenizer(text, read_special_tokens(os.path.dirname(file)), name=file)


def _find(path: str) -> str:
    if os.path.isdir(path):
        file = os.path.join(path, "tokenizer.json")
        if os.path.exists(file):
            return file
        models = sorted(glob.glob(os.path.join(glob.escape(path), "*.model")))
        if len(models) == 1:
            return models[0]
        found = f"{len(models)} .model files" if models else "neither"
        raise UserError(f"{path}: expected a tokenizer.json or one .model file, found {found}")
    if not os.path.isfile(path):
        raise UserError(f"tokenizer.path: no file or folder {path!r}")
    if not path.endswith((".model", ".json")):
        raise UserError(f"{path}: expected a SentencePiece .model or a tokenizer.json")
    return path
