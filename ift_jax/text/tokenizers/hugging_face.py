"""Hugging Face's `tokenizer.json`, through the `tokenizers` package."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers

from ift_jax.errors import UserError
from ift_jax.text.tokenizers.base import Tokenizer
from ift_jax.text.tokenizers.pretoken_cache import Words, cuts_at_spaces

_NEEDED = ("bos_token", "eos_token", "unk_token")  # If named, they must be there.
_PADS = ("<pad>", "<|pad|>", "[PAD]", "<|padding|>")
_PROBES = ("a b", " a", "\n", "I'm  5.")


class HuggingFaceTokenizer(Tokenizer):
    """A `tokenizer.json`, with the special tokens that the files beside it name.

    `tokenizer_config.json`, then `special_tokens_map.json`, name BOS, EOS and padding. Many
    released tokenizers pad with EOS or name no padding. Then the padding id is, in this
    order: a special token with "pad" in its name, one that is reserved or unused, the
    unknown token; a tokenizer with none of these gets a padding token, with a new id.
    """

    def __init__(
        self,
        definition: str,
        names: Mapping[str, str],
        name: str = "tokenizer.json",
        *,
        added_tokens: Sequence[str] = (),
        chat_template: str = "",
    ):
        """Reads the text of a `tokenizer.json`.

        `names` are `eos_token` and, where there are such, `bos_token`, `pad_token`, `unk_token` and
        others, each with its string; `name` is what errors call it; `added_tokens` become special,
        with a new id where they are not in the vocabulary; the chat template came with it.

        Raises:
            UserError: not a tokenizer, no EOS named, or a named token that is not in the
                vocabulary.
        """
        try:
            fields = json.loads(definition)
            # Truncation and padding that were left switched on would change what is encoded.
            fields.update(truncation=None, padding=None)
            for token in fields["added_tokens"]:
                marked = token["content"] in names.values() or token["content"] in added_tokens
                token["special"] = token["special"] or marked
            text = tokenizers.Tokenizer.from_str(json.dumps(fields))
        except Exception as error:  # `tokenizers` raises bare Exception.
            raise UserError(f"{name}: not a tokenizer.json ({error})") from error
        ids = text.get_vocab(with_added_tokens=True)
        self.n_given = max(ids.values()) + 1
        for key in _NEEDED:
            if key in names and names[key] not in ids:
                raise UserError(f"{name}: {key} is {names[key]!r}, which is not in the vocabulary")
        if "eos_token" not in names:
            raise UserError(
                f"{name}: no eos_token; expected a tokenizer_config.json or"
                " special_tokens_map.json beside it that names one"
            )
        special = {t.content for t in text.get_added_tokens_decoder().values() if t.special}
        pad = _choose_pad(ids, names, sorted(special, key=lambda token: ids[token]))
        self.names = {key: token for key, token in names.items() if token in ids}
        self.names["pad_token"] = pad
        for token in (*added_tokens, *([] if pad in ids else [pad])):
            if token not in special:
                text.add_special_tokens([tokenizers.AddedToken(token, normalized=False)])
        definition = text.to_str()
        self._control = tokenizers.Tokenizer.from_str(definition)
        self._text = _spelling(definition)
        ids = text.get_vocab(with_added_tokens=True)
        self.vocab_size = max(ids.values()) + 1
        if len(set(ids.values())) < len(ids):
            raise UserError(f"{name}: its ids have gaps; expected none where tokens are added")
        added = text.get_added_tokens_decoder()
        self.special_tokens = {t.content: i for i, t in sorted(added.items()) if t.special}
        self.strips = {
            t.content: (t.lstrip, t.rstrip)
            for t in added.values()
            if t.special and (t.lstrip or t.rstrip)
        }
        self.eos_id, self.pad_id = ids[names["eos_token"]], ids[pad]
        self.bos_id = ids[names["bos_token"]] if "bos_token" in names else None
        self._unseen = {self.pad_id, *self.special_tokens.values()}
        fields = json.loads(definition)
        middle = _spelling(json.dumps(_without_prefix(fields)))
        self._places = {"start": self._text, "control": self._text, "text": middle}
        self._words: Words | None = None
        if self.encode("a\nb", "text") == self.encode("a b", "text"):  # T5's: all it sees is words.
            self._places["text"] = self._text
        eos, n = names["eos_token"], len(self.encode_with_controls(names["eos_token"]))
        if any(self.encode(p) != self.encode_with_controls(eos + p)[n:] for p in _PROBES):
            self._places["control"] = middle
        if cuts_at_spaces(fields):  # Then every place is the same.
            self._words = Words(fields, self._whole)
        self._keep(
            chat_template,
            {
                "tokenizer.json": definition.encode(),
                "special_tokens_map.json": json.dumps(self.names).encode(),
            },
        )
        identity = json.dumps([definition, sorted(self.names.items())])
        self.fingerprint = hashlib.sha256(identity.encode()).hexdigest()

    def encode(self, text: str, place: str = "start") -> list[int]:
        return self._words.encode(text) if self._words else self._whole(text, place)

    def _whole(self, text: str, place: str = "start") -> list[int]:
        return self._places[place].encode(text, add_special_tokens=False).ids

    def encode_with_controls(self, text: str) -> list[int]:
        return self._control.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int], *, keep_special: bool = False) -> str:
        unseen = () if keep_special else self._unseen
        known = [i for i in map(int, ids) if 0 <= i < self.vocab_size and i not in unseen]
        return self._text.decode(known, skip_special_tokens=False)


def _choose_pad(ids: Mapping[str, int], names: Mapping[str, str], special: list[str]) -> str:
    """The token to pad with; one that is not in the vocabulary has to be added."""
    taken = (names["eos_token"], names.get("bos_token"))
    candidates = [
        names.get("pad_token", ""),
        *(
            token
            for word in ("pad", "reserved", "unused")
            for token in special
            if word in token.lower()
        ),
        names.get("unk_token", ""),
    ]
    found = [token for token in candidates if token in ids and token not in taken]
    return (found or [token for token in (candidates[0], *_PADS) if token and token not in ids])[0]


def _spelling(definition: str) -> tokenizers.Tokenizer:
    """A tokenizer that spells special tokens out."""
    tokenizer = tokenizers.Tokenizer.from_str(definition)
    tokenizer.encode_special_tokens = True
    return tokenizer


def _without_prefix(part: Any) -> Any:
    """A part of a tokenizer's definition that puts nothing in front of a text."""
    if isinstance(part, list):
        return [_without_prefix(item) for item in part if not _prepends(item)]
    if not isinstance(part, dict):
        return part
    part = {
        key: value if key == "model" else None if _prepends(value) else _without_prefix(value)
        for key, value in part.items()
    }
    never = {"prepend_scheme": "never", "add_prefix_space": False}
    return part | {key: value for key, value in never.items() if key in part}


def _prepends(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "Prepend"
