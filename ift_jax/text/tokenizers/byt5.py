"""ByT5's tokenizer: the bytes of UTF-8 (Xue et al. 2021, arXiv:2105.13626).

It has no vocabulary, so a folder holds no file of one: its `tokenizer_config.json` names the class.
The ids are those of `ByT5Tokenizer` in `transformers`: padding, EOS, unknown, the 256 bytes, then
the sentinels, whose ids run up, where those of T5's other tokenizers run down.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any

from ift_jax.errors import UserError
from ift_jax.io.json_reader import read_json_object
from ift_jax.text.control_strings import control_pattern, strip_beside_controls
from ift_jax.text.tokenizers.base import Tokenizer, template_file
from ift_jax.text.tokenizers.declared_tokens import NOTHING_DECLARED, Declared, DeclaredToken

NAME = "byt5"  # `tokenizer.path` of the tokenizer without a folder.
CLASS = "ByT5Tokenizer"
CONFIG_FILE = "tokenizer_config.json"
_SPECIAL = ("<pad>", "</s>", "<unk>")
_ROLES = ("pad_token", "eos_token", "unk_token")
_N_BYTES = 256
_FIRST_BYTE = len(_SPECIAL)
_FIRST_ADDED = _FIRST_BYTE + _N_BYTES
_N_SENTINELS = 125


def is_byt5(folder: str) -> bool:
    """Whether the `tokenizer_config.json` of a folder, if there is one, names ByT5's class."""
    path = os.path.join(folder, CONFIG_FILE)
    return os.path.exists(path) and read_json_object(path).get("tokenizer_class") == CLASS


class ByT5Tokenizer(Tokenizer):
    """Bytes, numbered from 3 on.

    `decode(encode(text)) == text` holds for every text. Bytes that are no UTF-8 are left out by
    `decode`, as in `transformers`.
    """

    def __init__(
        self,
        name: str = NAME,
        *,
        declared: Declared = NOTHING_DECLARED,
        added_tokens: Sequence[str] = (),
        chat_template: str = "",
    ):
        """Set the ids.

        Args:
            name: What error messages call the tokenizer.
            declared: What the files of its folder declare.
            added_tokens: Tokens that become special, with new ids after all others where it lacks
                them.
            chat_template: The Jinja source that came with the tokenizer.

        Raises:
            UserError: A declared token has an id that leaves a gap or is another token's, or
                padding, EOS or the unknown token have other names than ByT5's.
        """
        for role, content in zip(_ROLES, _SPECIAL, strict=True):
            if declared.names.get(role, content) != content:
                raise UserError(
                    f"{name}: {role} is {declared.names[role]!r}; expected {content!r}, ByT5's own"
                )
        sentinels = [f"<extra_id_{k}>" for k in range(_N_SENTINELS)]
        self.special_tokens: dict[str, int] = dict(zip(_SPECIAL, range(3), strict=True))
        self.special_tokens |= {
            content: i for i, content in enumerate(sentinels, start=_FIRST_ADDED)
        }
        for token in declared.tokens:
            self._declare(token, name)
        self.base_vocab_size = self._n_tokens()
        for content in added_tokens:
            self._declare(DeclaredToken(content), name)
        self.vocab_size = self._n_tokens()
        self.pad_id, self.eos_id, self.bos_id, self.adds_bos = 0, 1, None, False
        self.special_tokens_map = dict(zip(_ROLES, _SPECIAL, strict=True))
        # The class makes it so, whatever a folder says.
        self.strips = dict.fromkeys(_SPECIAL, (True, True))
        self._controls = control_pattern(self.special_tokens)
        self._strings = {i: content.encode() for content, i in self.special_tokens.items()}
        self.chat_template = chat_template
        config = self.config()
        self.files = {CONFIG_FILE: json.dumps(config).encode(), **template_file(chat_template)}
        self.fingerprint = hashlib.sha256(json.dumps(config).encode()).hexdigest()

    def _n_tokens(self) -> int:
        return max(self.special_tokens.values()) + 1

    def _declare(self, token: DeclaredToken, name: str) -> None:
        """Add a token, as a control token, with the id that it is declared with, or the next.

        Raises:
            UserError: It has, or there is, another token.
        """
        expected = self.special_tokens.get(token.content, self._n_tokens())
        if token.id not in (None, expected):
            raise UserError(
                f"{name}: the files beside it declare {token.content!r} as id {token.id}; expected "
                f"{expected}"
            )
        self.special_tokens[token.content] = expected

    def config(self) -> dict[str, Any]:
        """Return the `tokenizer_config.json` that gives this tokenizer again."""
        added = {}
        for content, i in self.special_tokens.items():
            strips = content in _SPECIAL
            added[str(i)] = {
                "content": content,
                "lstrip": strips,
                "normalized": False,
                "rstrip": strips,
                "single_word": False,
                "special": True,
            }
        ordered = sorted(self.special_tokens, key=self.special_tokens.__getitem__)
        return {
            "added_tokens_decoder": added,
            "additional_special_tokens": ordered[_FIRST_BYTE:],
            "extra_ids": 0,  # They are all listed.
            "tokenizer_class": CLASS,
            **self.special_tokens_map,
        }

    def encode(self, text: str, place: str = "start") -> list[int]:
        return [byte + _FIRST_BYTE for byte in text.encode()]

    def encode_with_controls(self, text: str) -> list[int]:
        parts = self._controls.split(text) if self._controls else [text]
        ids: list[int] = []
        # The class is Python code, so it strips as Python does.
        for i, part in enumerate(strip_beside_controls(parts, self.strips, None)):
            ids += [self.special_tokens[part]] if i % 2 else self.encode(part)
        return ids

    def decode(self, ids: Sequence[int], *, keep_special: bool = False) -> str:
        text = b""
        for i in map(int, ids):
            if _FIRST_BYTE <= i < _FIRST_ADDED:
                text += bytes([i - _FIRST_BYTE])
            elif keep_special:
                text += self._strings.get(i, b"")
        return text.decode(errors="ignore")
