"""Hugging Face's `tokenizer.json`, through the `tokenizers` package."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers

from ift_jax.errors import UserError
from ift_jax.text.tokenizer_base import Tokenizer

_NAMES = ("bos_token", "eos_token", "pad_token", "unk_token")


class HuggingFaceTokenizer(Tokenizer):
    """A `tokenizer.json`, with the special tokens that the files beside it name.

    `tokenizer_config.json`, then `special_tokens_map.json`, name BOS, EOS and padding. Many
    released tokenizers pad with EOS or name no padding. Then the padding id is, in this
    order: a special token with "pad" in its name, one that is reserved or unused, the
    unknown token; a tokenizer with none of these is refused.
    """

    def __init__(self, definition: str, names: Mapping[str, str], name: str = "tokenizer.json"):
        """Reads a tokenizer.

        Args:
            definition: the text of `tokenizer.json`.
            names: `eos_token` and, where there are such, `bos_token`, `pad_token` and
                `unk_token`, each with its string.
            name: what error messages call it.

        Raises:
            UserError: not a tokenizer, no EOS named, a named token that is not in the
                vocabulary, or no id to pad with but EOS.
        """
        try:
            fields = json.loads(definition)
            # Truncation and padding that were left switched on would change what is encoded.
            fields.update(truncation=None, padding=None)
            for token in fields["added_tokens"]:
                token["special"] = token["special"] or token["content"] in names.values()
            definition = json.dumps(fields)
            self._text = tokenizers.Tokenizer.from_str(definition)
            self._control = tokenizers.Tokenizer.from_str(definition)
        except Exception as error:  # `tokenizers` raises bare Exception.
            raise UserError(f"{name}: not a tokenizer.json ({error})") from error
        self._text.encode_special_tokens = True
        ids = self._text.get_vocab(with_added_tokens=True)
        self.vocab_size = max(ids.values()) + 1
        added = self._text.get_added_tokens_decoder()
        self.special_tokens = {t.content: i for i, t in sorted(added.items()) if t.special}
        for key, token in names.items():
            if token not in ids:
                raise UserError(f"{name}: {key} is {token!r}, which is not in the vocabulary")
        if "eos_token" not in names:
            raise UserError(
                f"{name}: no eos_token; expected a tokenizer_config.json or"
                " special_tokens_map.json beside it that names one"
            )
        self.eos_id = ids[names["eos_token"]]
        self.bos_id = ids[names["bos_token"]] if "bos_token" in names else None
        self.pad_id = self._choose_pad(ids, names, name)
        self._unseen = {self.pad_id, *self.special_tokens.values()}
        self.files = {
            "tokenizer.json": definition.encode(),
            "special_tokens_map.json": json.dumps(dict(names)).encode(),
        }
        identity = json.dumps([definition, sorted(names.items())])
        self.fingerprint = hashlib.sha256(identity.encode()).hexdigest()

    def _choose_pad(self, ids: Mapping[str, int], names: Mapping[str, str], name: str) -> int:
        taken = (self.eos_id, self.bos_id)
        candidates = [names.get("pad_token", "")]
        for word in ("pad", "reserved", "unused"):
            candidates += [token for token in self.special_tokens if word in token.lower()]
        candidates += [names.get("unk_token", "")]
        for token in candidates:
            if token in ids and ids[token] not in taken:
                return ids[token]
        raise UserError(
            f"{name}: pad_token is {names.get('pad_token')!r} and there is no other special token"
            " to pad with; expected a pad_token that is not the eos_token"
        )

    def encode(self, text: str) -> list[int]:
        """See `Tokenizer.encode`."""
        return self._text.encode(text, add_special_tokens=False).ids

    def encode_with_controls(self, text: str) -> list[int]:
        """See `Tokenizer.encode_with_controls`."""
        return self._control.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int], *, keep_special: bool = False) -> str:
        """See `Tokenizer.decode`."""
        known = [i for i in map(int, ids) if 0 <= i < self.vocab_size]
        if not keep_special:
            known = [i for i in known if i not in self._unseen]
        return self._text.decode(known, skip_special_tokens=False)


def read_special_tokens(folder: str) -> dict[str, str]:
    """The special tokens that a tokenizer's folder names, such as {"eos_token": "</s>"}.

    Raises:
        UserError: a file that is not a JSON object.
    """
    names: dict[str, str] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        path = os.path.join(folder, file)
        if not os.path.exists(path):
            continue
        try:
            with open(path, encoding="utf-8") as stream:
                fields: Any = json.load(stream)
            fields = dict(fields)
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}: expected a JSON object ({error})") from error
        for key in _NAMES:
            token = fields.get(key)
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str) and token:
                names[key] = token
    return names
