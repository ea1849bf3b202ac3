"""Small Hugging Face folders, with a tokenizer of as many words as the models have rows."""

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models, pre_tokenizers

from tests.models import hugging_face as hf

SPECIAL = ("<pad>", "</s>", "<s>")


def write_tokenizer(folder: Path, n_words: int = hf.VOCAB, **fields: Any) -> None:
    words = [*SPECIAL, "<unk>", *(f"w{i}" for i in range(4, n_words))]
    vocab = {word: i for i, word in enumerate(words)}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(list(SPECIAL))
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer.to_str())
    names = {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names | fields))


def write_folder(folder: Path, name: str, dtype: Any = hf.torch.float32) -> Path:
    """A model of `hf.DECODERS` or `hf.T5S` with a tokenizer, as a release has it."""
    hf.save(hf.reference(name), folder, dtype)
    write_tokenizer(folder)
    return folder
