"""Small Hugging Face folders, and what is read from them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from ift_jax.config import files as config_file
from ift_jax.config.schema import Config
from ift_jax.interop.safetensors_files import open_safetensors
from tests.models import hugging_face as hf

SPECIAL = ("<pad>", "</s>", "<s>")
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def write_tokenizer(folder: Path, n_words: int = hf.VOCAB, **fields: Any) -> None:
    """A tokenizer with as many words as the models have rows."""
    words = [*SPECIAL, "<unk>", *(f"w{i}" for i in range(4, n_words))]
    vocab = {word: i for i, word in enumerate(words)}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(list(SPECIAL))
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer.to_str())
    names = {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names | fields))


def write_qwen2_tokenizer(folder: Path) -> None:
    """A tokenizer of Qwen2's kind: byte-level BPE, with only a part of the alphabet."""
    letters = [*map(chr, range(0x21, 0x7F)), "\u0120", "\u010a"]  # ASCII, space and newline.
    vocab = {token: i for i, token in enumerate([*SPECIAL, *letters, "ab", "abc"])}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab, [("a", "b"), ("ab", "c")]))
    split = pre_tokenizers.Split(tokenizers.Regex(QWEN2_SPLIT), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer.to_str())
    names = {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))


def write_folder(folder: Path, name: str, dtype: Any = hf.torch.float32) -> Path:
    """A model of `hf.DECODERS` or `hf.T5S` with a tokenizer, as it would be released."""
    hf.save(hf.reference(name), folder, dtype)
    # transformers 5 reads any tokenizer beside a Qwen2 as Qwen2's own.
    (write_qwen2_tokenizer if name.startswith("qwen2") else write_tokenizer)(folder)
    return folder


def edit_json(path: Path, **fields: Any) -> None:
    """Change fields of a JSON file, which need not exist."""
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(before | fields))


def config_from(folder: Path, **model: Any) -> Config:
    """The config of a run that starts from a folder or a workdir."""
    is_decoder = model.get("architecture", "decoder") == "decoder"
    return config_file.from_dict(
        {
            "data": {"mixture": "m"} | ({"max_length": 64} if is_decoder else {}),
            "train": {"steps": 1},
            "model": {"init_from": str(folder)} | model,
        }
    )


def load_in_transformers(folder: Path, name: str) -> Any:
    """The model that `transformers` makes of a folder."""
    kind = "Seq2SeqLM" if name in hf.T5S else "CausalLM"
    model = getattr(hf.transformers, f"AutoModelFor{kind}").from_pretrained(
        folder, attn_implementation="eager", dtype="auto"
    )
    return hf.as_released(model)


def logits(model: Any, name: str) -> np.ndarray:
    """The logits of a model of `transformers` for one fixed batch."""
    rng = np.random.default_rng(3)
    ids = hf.torch.tensor(rng.integers(3, hf.VOCAB, (2, 21)))
    with hf.torch.no_grad():
        if name in hf.T5S:
            return model(input_ids=ids, decoder_input_ids=ids[:, :9]).logits.float().numpy()
        return model(ids).logits.float().numpy()


def stored_tensors(folder: Path) -> dict[str, tuple[np.dtype, tuple[int, ...], bytes]]:
    """The dtype, shape and bytes of each tensor in a folder."""
    stored = {}
    for name, tensor in open_safetensors(str(folder)).items():
        everything = (slice(None),) * len(tensor.shape)
        stored[name] = (tensor.dtype, tensor.shape, tensor.read(everything).tobytes())
    return stored
