"""Loading a tokenizer: the one way from a path to a `Tokenizer`."""

import glob
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ift_jax.config.schema import TokenizerConfig
from ift_jax.errors import UserError
from ift_jax.io.hub_names import hub_hint
from ift_jax.io.paths import as_path, fetch, is_remote
from ift_jax.text.tokenizers import byt5, chat_template_files
from ift_jax.text.tokenizers.base import Tokenizer
from ift_jax.text.tokenizers.chat_template_files import read_chat_template
from ift_jax.text.tokenizers.declared_tokens import read_declared
from ift_jax.text.tokenizers.hugging_face import HuggingFaceTokenizer
from ift_jax.text.tokenizers.sentencepiece import SentencePieceTokenizer

_NOTHING_ADDED = TokenizerConfig()
_SENTINEL = re.compile(r"<extra_id_\d+>")


def load_tokenizer(path: str, options: TokenizerConfig = _NOTHING_ADDED) -> Tokenizer:
    """Load a tokenizer, and what the files beside it say about it.

    Args:
        path: A SentencePiece `.model`, a `tokenizer.json`, or a folder that holds one of the two
            (`tokenizer.json` is preferred, as in `transformers`) or names ByT5's tokenizer, which
            has no such file; local or in a bucket. "byt5" is that tokenizer without a folder.
        options: `extra_ids` is the number of T5's sentinels to add to a SentencePiece model.
            `added_tokens` become special, with new ids after the last where the tokenizer lacks
            them. The other fields are not read.

    Raises:
        UserError: There is no such file, the folder holds none or several, or the file cannot be
            used.
    """
    if not is_remote(path):
        return _load_local(path, options)
    remote = as_path(path)
    is_file = path.endswith((".model", ".json"))
    with tempfile.TemporaryDirectory() as copy:
        folder = remote.parent if is_file else remote
        fetch(str(folder), copy)
        templates = chat_template_files.FOLDER
        fetch(str(folder / templates), os.path.join(copy, templates))
        local = os.path.join(copy, remote.name if is_file else "")
        try:
            return _load_local(local, options)
        except UserError as error:
            raise UserError(str(error).replace(local, path)) from error


def tokenizer_from_files(files: Mapping[str, bytes], where: str = "tokenizer") -> Tokenizer:
    """Load a tokenizer from the contents of its files, by name, as in `Tokenizer.files`.

    Args:
        files: The name of each file -> its content.
        where: What messages call their folder.

    Raises:
        UserError: As `load_tokenizer`.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            Path(folder, name).write_bytes(content)
        try:
            return load_tokenizer(folder)
        except UserError as error:
            raise UserError(str(error).replace(folder, where)) from error


def tokenizer_file_paths(path: str) -> list[str]:
    """Return the absolute paths of the local files that `load_tokenizer(path)` may read.

    There are none for a path in a bucket. A tokenizer that a run trained is named by its content
    there, and one that a user gave is read to see whether it has changed.
    """
    if is_remote(path):
        return []
    given = Path(path).absolute()
    if _is_built_in(path):
        return []
    if given.is_dir():
        folder, files = given, list(given.glob("*.model"))
    else:
        folder, files = given.parent, [given]
    patterns = (
        "tokenizer*.json",
        "special_tokens_map.json",
        "added_tokens.json",
        chat_template_files.FILE,
        f"{chat_template_files.FOLDER}/*.jinja",
    )
    for pattern in patterns:
        files += folder.glob(pattern)
    return sorted({str(file) for file in files})


def _load_local(path: str, options: TokenizerConfig) -> Tokenizer:
    file = byt5.NAME if _is_built_in(path) else _find(path)
    if file.endswith(".model"):
        return _load_sentencepiece(file, options)
    if options.extra_ids:
        raise UserError(
            f"tokenizer.extra_ids = {options.extra_ids}: expected 0, {file} has extra ids of its "
            "own"
        )
    if file == byt5.NAME:
        return byt5.ByT5Tokenizer(added_tokens=options.added_tokens)
    if os.path.basename(file) == byt5.CONFIG_FILE:
        return _load_byt5(file, options)
    return _load_hugging_face(file, options)


def _is_built_in(path: str) -> bool:
    """Whether a path is the name of the tokenizer that needs no file."""
    return path == byt5.NAME and not os.path.exists(path)


def _find(path: str) -> str:
    """Return the tokenizer's file: the path itself, or the file in a folder."""
    if os.path.isdir(path):
        file = os.path.join(path, "tokenizer.json")
        if os.path.exists(file):
            return file
        if byt5.is_byt5(path):
            return os.path.join(path, byt5.CONFIG_FILE)
        models = sorted(glob.glob(os.path.join(glob.escape(path), "*.model")))
        if len(models) == 1:
            return models[0]
        found = f"{len(models)} .model files" if models else "neither"
        raise UserError(f"{path}: expected a tokenizer.json or one .model file, found {found}")
    if not os.path.isfile(path):
        raise UserError(f"tokenizer.path: no file or folder {path!r}{hub_hint(path)}")
    if not path.endswith((".model", ".json")):
        raise UserError(f"{path}: expected a SentencePiece .model or a tokenizer.json")
    return path


def _load_sentencepiece(file: str, options: TokenizerConfig) -> Tokenizer:
    folder = os.path.dirname(file)
    declared = read_declared(folder)
    # T5's own list of its sentinels; their ids run down from the last one.
    listed = [token for token in declared.tokens if _SENTINEL.fullmatch(token.content)]
    with open(file, "rb") as model:
        return SentencePieceTokenizer(
            model.read(),
            options.extra_ids or len(listed),
            file,
            declared=declared,
            added_tokens=options.added_tokens,
            chat_template=read_chat_template(folder),
        )


def _load_byt5(file: str, options: TokenizerConfig) -> Tokenizer:
    folder = os.path.dirname(file)
    return byt5.ByT5Tokenizer(
        file,
        declared=read_declared(folder),
        added_tokens=options.added_tokens,
        chat_template=read_chat_template(folder),
    )


def _load_hugging_face(file: str, options: TokenizerConfig) -> Tokenizer:
    folder = os.path.dirname(file)
    try:
        with open(file, encoding="utf-8") as stream:
            definition = stream.read()
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not a tokenizer.json ({error})") from error
    declared = read_declared(folder)
    return HuggingFaceTokenizer(
        definition,
        declared.names,
        file,
        declared=declared.tokens,
        add_bos=declared.add_bos,
        added_tokens=options.added_tokens,
        chat_template=read_chat_template(folder),
    )
