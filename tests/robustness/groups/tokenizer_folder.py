"""Folders of tokenizers: `tokenizer.json` or a SentencePiece model, and the files beside it.

`tokenizers` and `sentencepiece` judge: a file that they refuse must be refused, and plain text must
get the ids that they give.
"""

import json
import random
from pathlib import Path
from typing import Any

from tests.robustness.byte_mutations import spoiled_bytes
from tests.robustness.group import Case, Group
from tests.robustness.json_mutations import spoiled_json
from tests.text.small_tokenizers import (
    NAMES,
    TEXTS,
    huggingface_definition,
    sentencepiece_bytes,
)

_TEMPLATE = "{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}"
_TOKEN = {
    "content": "<|tool|>",
    "special": True,
    "lstrip": False,
    "rstrip": False,
    "normalized": False,
    "single_word": False,
}
_SAMPLES = (TEXTS[0], TEXTS[7], "Caf\u00e9 42\n\n  x \U0001f600", "")


def _config(n_tokens: int) -> dict[str, Any]:
    """A tokenizer_config.json with everything that is read."""
    return NAMES | {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": _TEMPLATE,
        "add_bos_token": False,
        "legacy": True,
        "model_max_length": 128,
        "additional_special_tokens": ["<|tool|>"],
        "added_tokens_decoder": {str(n_tokens): _TOKEN},
    }


def _hugging_face_files() -> dict[str, Any]:
    definition = json.loads(huggingface_definition())
    n_tokens = len(definition["model"]["vocab"])
    return {
        "tokenizer.json": definition,
        "tokenizer_config.json": _config(n_tokens),
        "special_tokens_map.json": NAMES | {"eos_token": {"content": NAMES["eos_token"]}},
    }


def _sentencepiece_files() -> dict[str, Any]:
    return {
        "tokenizer.model": sentencepiece_bytes(),
        "tokenizer_config.json": {
            "chat_template": [{"name": "default", "template": _TEMPLATE}],
            "legacy": False,
            "add_bos_token": True,
            "eos_token": "</s>",
        },
        "added_tokens.json": {"<|tool|>": 480, "<|image|>": 481},
    }


def _spoiled_model(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """A SentencePiece model with a fault; often with a piece that is no UTF-8."""
    if rng.random() < 0.5:
        return spoiled_bytes(content, rng, header=len(content) // 2)
    letters = [i for i, byte in enumerate(content) if 97 <= byte < 123]
    place = rng.choice(letters)
    return content[:place] + b"\xff" + content[place + 1 :], f"0xFF at {place}"


class TokenizerFolder(Group):
    """A tokenizer is loaded from a folder, and encodes and decodes a few texts."""

    def make(self, rng: random.Random, folder: Path) -> Case:
        files = rng.choice((_hugging_face_files, _sentencepiece_files))()
        spoiled = rng.choice(sorted(files))
        change = ""
        for name, value in files.items():
            if name != spoiled:
                content = value if isinstance(value, bytes) else json.dumps(value).encode()
            elif isinstance(value, bytes):
                content, change = _spoiled_model(value, rng)
            else:
                content, change = spoiled_json(value, rng)
            (folder / name).write_bytes(content)
        return Case(f"{spoiled}: {change}", folder, spoiled)

    def read(self, case: Case) -> Any:
        from ift_jax.text.tokenizers.load import load_tokenizer

        tokenizer = load_tokenizer(str(case.path))
        ids = [tokenizer.encode(text) for text in _SAMPLES]
        for of_text in ids:
            tokenizer.decode(of_text)
            tokenizer.decode([*of_text, tokenizer.eos_id, 10**6], keep_special=True)
        tokenizer.encode_with_controls("a<|tool|>b<|im_end|> c")
        assert isinstance(tokenizer.chat_template, str)
        return ids

    def complaint(self, case: Case, value: Any) -> str:
        if case.extra == "tokenizer.json":
            import tokenizers

            text = (case.path / case.extra).read_text("utf-8-sig")  # A byte order mark is harmless.
            try:
                theirs = tokenizers.Tokenizer.from_str(text)
            except Exception as error:  # `tokenizers` raises bare Exception.
                return f"tokenizers refuses it: {error}"
            theirs.no_truncation()
            theirs.no_padding()
            want = [theirs.encode(text, add_special_tokens=False).ids for text in _SAMPLES]
        elif case.extra == "tokenizer.model":
            import sentencepiece

            model = (case.path / case.extra).read_bytes()
            want = sentencepiece.SentencePieceProcessor(model_proto=model).encode(list(_SAMPLES))
        else:
            return ""
        return "" if value == want else f"its own library gives {want}; we give {value}"[:1000]


GROUP = TokenizerFolder()
