"""Hugging Face's `tokenizer.json`, read by the `tokenizers` package."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers

from ift_jax.errors import UserError
from ift_jax.io.json_reader import parse_json
from ift_jax.text.tokenizers.base import Tokenizer, template_file
from ift_jax.text.tokenizers.pretoken_cache import PretokenCache, cuts_at_spaces

_MUST_EXIST = ("bos_token", "eos_token", "unk_token")  # If named, they must be in the vocabulary.
_NEW_PADS = ("<pad>", "<|pad|>", "[PAD]", "<|padding|>")
_PROBES = ("a b", " a", "\n", "I'm  5.")


class HuggingFaceTokenizer(Tokenizer):
    """A `tokenizer.json`, with the special tokens that the files beside it name.

    `tokenizer_config.json`, then `special_tokens_map.json`, name BOS, EOS and padding. Many
    released tokenizers pad with EOS or name no padding token. Then padding is the first of: a
    special token with "pad" in its name, one that is reserved, one that is unused, and the unknown
    token. A tokenizer with none of these gets a padding token with a new id.
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
        """Read the text of a `tokenizer.json`.

        Args:
            definition: The text of the file.
            names: Special tokens by role: `eos_token` and, where they exist, `bos_token`,
                `pad_token`, `unk_token` and others.
            name: What error messages call the file.
            added_tokens: Tokens that become special, with new ids where the vocabulary lacks them.
            chat_template: The Jinja source that came with the tokenizer.

        Raises:
            UserError: The text is no tokenizer, names no EOS, or a named token is not in the
                vocabulary.
        """
        inner = _parse(definition, {*names.values(), *added_tokens}, name)
        ids = inner.get_vocab(with_added_tokens=True)
        _check_names(names, ids, name)
        self.base_vocab_size = max(ids.values()) + 1
        pad = _choose_pad(ids, names, _special_strings(inner))
        self.special_tokens_map = {role: token for role, token in names.items() if token in ids}
        self.special_tokens_map["pad_token"] = pad
        _add_special_tokens(inner, added_tokens if pad in ids else (*added_tokens, pad))
        self._read_vocabulary(inner, names, pad, name)
        definition = inner.to_str()
        self._make_encoders(definition, names["eos_token"])
        self.chat_template = chat_template
        self.files = {
            "tokenizer.json": definition.encode(),
            "special_tokens_map.json": json.dumps(self.special_tokens_map).encode(),
            **template_file(chat_template),
        }
        identity = json.dumps([definition, sorted(self.special_tokens_map.items())])
        self.fingerprint = hashlib.sha256(identity.encode()).hexdigest()

    def _read_vocabulary(
        self, inner: tokenizers.Tokenizer, names: Mapping[str, str], pad: str, name: str
    ) -> None:
        """Set the ids and special tokens; raise UserError if the ids are not unique."""
        ids = inner.get_vocab(with_added_tokens=True)
        self.vocab_size = max(ids.values()) + 1
        if len(set(ids.values())) < len(ids):
            raise UserError(f"{name}: its ids have gaps; expected none where tokens are added")
        added = inner.get_added_tokens_decoder()
        special = {i: token for i, token in sorted(added.items()) if token.special}
        self.special_tokens = {token.content: i for i, token in special.items()}
        self.strips = {
            token.content: (token.lstrip, token.rstrip)
            for token in special.values()
            if token.lstrip or token.rstrip
        }
        self.eos_id = ids[names["eos_token"]]
        self.pad_id = ids[pad]
        self.bos_id = ids[names["bos_token"]] if "bos_token" in names else None
        self._hidden_ids = {self.pad_id, *self.special_tokens.values()}

    def _make_encoders(self, definition: str, eos: str) -> None:
        """Set an encoder for text with control strings, and one for each position of plain text."""
        fields = parse_json(definition, "tokenizer.json")
        self._with_controls = tokenizers.Tokenizer.from_str(definition)
        self._plain = _spelling_out(definition)
        middle = _spelling_out(json.dumps(_without_prefix(fields)))
        self._by_place = {"start": self._plain, "control": self._plain, "text": middle}
        self._cache: PretokenCache | None = None
        # T5's tokenizer sees nothing but words, so a text is the same everywhere.
        if self.encode("a\nb", "text") == self.encode("a b", "text"):
            self._by_place["text"] = self._plain
        n_eos = len(self.encode_with_controls(eos))
        after_eos = {probe: self.encode_with_controls(eos + probe)[n_eos:] for probe in _PROBES}
        if any(self.encode(probe) != ids for probe, ids in after_eos.items()):
            self._by_place["control"] = middle
        if cuts_at_spaces(fields):  # Such a tokenizer gives the same ids at every position.
            self._cache = PretokenCache(fields, self._encode_whole)

    def encode(self, text: str, place: str = "start") -> list[int]:
        return self._cache.encode(text) if self._cache else self._encode_whole(text, place)

    def _encode_whole(self, text: str, place: str = "start") -> list[int]:
        """Encode without the cache."""
        return self._by_place[place].encode(text, add_special_tokens=False).ids

    def encode_with_controls(self, text: str) -> list[int]:
        return self._with_controls.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int], *, keep_special: bool = False) -> str:
        hidden = () if keep_special else self._hidden_ids
        shown = [i for i in map(int, ids) if 0 <= i < self.vocab_size and i not in hidden]
        return self._plain.decode(shown, skip_special_tokens=False)


def _parse(definition: str, special: set[str], name: str) -> tokenizers.Tokenizer:
    """Parse a `tokenizer.json`; its added tokens that are in `special` become special."""
    fields = parse_json(definition, name, expected="a tokenizer.json")
    try:
        # Truncation and padding that were left switched on would change what is encoded.
        fields.update(truncation=None, padding=None)
        for token in fields["added_tokens"]:
            token["special"] = token["special"] or token["content"] in special
        return tokenizers.Tokenizer.from_str(json.dumps(fields))
    except Exception as error:  # `tokenizers` raises bare Exception.
        raise UserError(f"{name}: not a tokenizer.json ({error})") from error


def _check_names(names: Mapping[str, str], ids: Mapping[str, int], name: str) -> None:
    for role in _MUST_EXIST:
        if role in names and names[role] not in ids:
            raise UserError(f"{name}: {role} is {names[role]!r}, which is not in the vocabulary")
    if "eos_token" not in names:
        raise UserError(
            f"{name}: no eos_token; expected a tokenizer_config.json or"
            " special_tokens_map.json beside it that names one"
        )


def _special_strings(inner: tokenizers.Tokenizer) -> list[str]:
    """Return the strings of the special tokens, in the order of their ids."""
    added = inner.get_added_tokens_decoder()
    return [token.content for _, token in sorted(added.items()) if token.special]


def _add_special_tokens(inner: tokenizers.Tokenizer, tokens: Sequence[str]) -> None:
    """Make tokens special, with new ids for those that are not in the vocabulary."""
    special = _special_strings(inner)
    for token in tokens:
        if token not in special:
            inner.add_special_tokens([tokenizers.AddedToken(token, normalized=False)])


def _choose_pad(ids: Mapping[str, int], names: Mapping[str, str], special: list[str]) -> str:
    """Choose the padding token; one that is not in the vocabulary has to be added."""
    named = names.get("pad_token", "")
    candidates = [named]
    for word in ("pad", "reserved", "unused"):
        candidates += [token for token in special if word in token.lower()]
    candidates.append(names.get("unk_token", ""))
    taken = (names["eos_token"], names.get("bos_token"))
    for token in candidates:
        if token in ids and token not in taken:
            return token
    return next(token for token in (named, *_NEW_PADS) if token and token not in ids)


def _spelling_out(definition: str) -> tokenizers.Tokenizer:
    """Make a tokenizer that encodes control strings as ordinary text."""
    tokenizer = tokenizers.Tokenizer.from_str(definition)
    tokenizer.encode_special_tokens = True
    return tokenizer


def _without_prefix(part: Any) -> Any:
    """Copy a part of a `tokenizer.json` so that it puts no space in front of a text."""
    if isinstance(part, list):
        return [_without_prefix(item) for item in part if not _prepends(item)]
    if not isinstance(part, dict):
        return part
    copy = {}
    for key, value in part.items():
        if key == "model":  # The vocabulary is large, and nothing in it puts spaces anywhere.
            copy[key] = value
        else:
            copy[key] = None if _prepends(value) else _without_prefix(value)
    if "prepend_scheme" in copy:
        copy["prepend_scheme"] = "never"
    if "add_prefix_space" in copy:
        copy["add_prefix_space"] = False
    return copy


def _prepends(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "Prepend"
