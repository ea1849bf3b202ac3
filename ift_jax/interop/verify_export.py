"""An exported folder is read back and compared before it gets its name.

Weights are compared by a checksum of each tensor, the config with the model's, and the tokenizer by
the ids of sample texts: here, and in `transformers` where it is installed, which chooses a class of
tokenizer by rules of its own.
"""

import importlib
import importlib.util
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ift_jax.config.schema import ModelConfig
from ift_jax.errors import UserError
from ift_jax.interop.hugging_face_config import (
    differences,
    from_hugging_face,
    with_positions,
)
from ift_jax.interop.safetensors_files import Tensor
from ift_jax.interop.sample_texts import CONVERSATION, SAMPLE_TEXTS
from ift_jax.io.json_reader import read_json_object
from ift_jax.text.tokenizers.base import Tokenizer
from ift_jax.text.tokenizers.load import load_tokenizer

_MOST_CONTROLS = 5


class WrittenTensor(NamedTuple):
    """What was written of a tensor."""

    shape: tuple[int, ...]
    dtype: np.dtype
    checksum: int


def written(values: np.ndarray) -> WrittenTensor:
    """Return what `check_tensors` compares of a tensor that is being written."""
    content = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    return WrittenTensor(values.shape, values.dtype, zlib.crc32(content.data))


def check_tensors(stored: Mapping[str, Tensor], tensors: Mapping[str, WrittenTensor]) -> None:
    """Compare tensors, which are read from their files, with what was written.

    Raises:
        UserError: Names the first tensor that differs.
    """
    if stored.keys() != tensors.keys():
        different = sorted(stored.keys() ^ tensors.keys())
        raise _wrong(f"it holds other tensors ({different[0]})")
    for name, tensor in stored.items():
        everything = (slice(None),) * len(tensor.shape)
        if written(tensor.read(everything)) != tensors[name]:
            raise _wrong(f"{name} is not what was written; is the disk sound?")


def check_config(folder: str, config: ModelConfig, max_length: int) -> None:
    """Compare the config of a folder with a model's.

    Args:
        folder: The folder.
        config: The model's config.
        max_length: The positions of a model whose config has no bound.

    Raises:
        UserError: Names the fields that differ.
    """
    path = os.path.join(folder, "config.json")
    back = from_hugging_face(read_json_object(path), path)
    check_same_config(back, with_positions(config, max_length))


def check_same_config(back: ModelConfig, config: ModelConfig) -> None:
    """Compare a model's config, as it was read back, with what was written.

    Raises:
        UserError: Names the fields that differ.
    """
    if different := differences(config, back):
        raise _wrong(f"its config gives {different}")


def check_tokenizer(folder: str, tokenizer: Tokenizer) -> None:
    """Compare the tokenizer of a folder with what was written.

    Raises:
        UserError: Names the first text whose ids differ.
    """
    check_same_tokenizer(load_tokenizer(folder), tokenizer)


def check_same_tokenizer(ours: Tokenizer, tokenizer: Tokenizer) -> None:
    """Compare a tokenizer, as it was read back, with what was written.

    Raises:
        UserError: Names the first text whose ids differ.
    """
    for text in (*SAMPLE_TEXTS, *_with_controls(tokenizer)):
        want = tokenizer.encode_with_controls(text)
        _compare("this package", text, ours.encode_with_controls(text), want)
    for role in ("eos_id", "pad_id", "bos_id"):
        if getattr(ours, role) != getattr(tokenizer, role):
            raise _wrong(f"its {role} is {getattr(ours, role)}, not {getattr(tokenizer, role)}")


def check_in_transformers(
    folder: str, tokenizer: Tokenizer, chat_ids: Sequence[int] | None
) -> None:
    """Compare the tokenizer that `transformers` chooses for a folder, if it is installed.

    Args:
        folder: The folder, with the model's config in it.
        tokenizer: The tokenizer that was written.
        chat_ids: The prompt ids of `CONVERSATION` by the template that was written; None: there
            is no template, or it cannot render such a conversation.

    Raises:
        UserError: Names the first text whose ids differ.
    """
    if importlib.util.find_spec("transformers") is None:
        return
    transformers = importlib.import_module("transformers")
    reader = f"transformers {transformers.__version__}"
    try:
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
        theirs_by_text = {
            text: theirs.encode(text, add_special_tokens=False)
            for text in (*SAMPLE_TEXTS, *_with_controls(tokenizer))
        }
        chat = None
        if chat_ids is not None:
            messages = [{"role": role, "content": text} for role, text in CONVERSATION]
            chat = theirs.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=True, return_dict=False
            )
    except Exception as error:  # transformers raises errors of many kinds.
        reason = " ".join(str(error).split())[:300]
        raise _wrong(f"{reader} cannot read it: {reason}") from error
    reader = f"{reader} ({type(theirs).__name__})"
    for text, ids in theirs_by_text.items():
        _compare(reader, text, ids, tokenizer.encode_with_controls(text))
    if chat is not None and chat_ids is not None:
        _compare(reader, "a conversation", list(chat), list(chat_ids))


def _with_controls(tokenizer: Tokenizer) -> Iterable[str]:
    """Return texts around control strings, the last ones of the vocabulary among them."""
    controls = sorted(tokenizer.special_tokens, key=tokenizer.special_tokens.__getitem__)
    chosen = dict.fromkeys((*controls[:2], *controls[-(_MOST_CONTROLS - 2) :]))
    return [f"Before{control}after" for control in chosen]


def _compare(reader: str, text: str, ids: list[int], want: list[int]) -> None:
    if ids != want:
        pairs = enumerate(zip(ids, want, strict=False))
        place = next((i for i, (a, b) in pairs if a != b), min(len(ids), len(want)))
        raise _wrong(
            f"{reader} gives {text[:40]!r} the ids {ids[place : place + 6]}... where the tokenizer "
            f"gives {want[place : place + 6]}... (from id {place} on)"
        )


def _wrong(what: str) -> UserError:
    return UserError(f"--output: the export does not read back: {what}")
