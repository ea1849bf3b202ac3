"""Hugging Face's `tokenizer.json`, read by the `tokenizers` package."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tokenizers
from tokenizers import processors

from ift_jax.errors import UserError
from ift_jax.io.json_reader import parse_json
from ift_jax.text.control_strings import WHITE_SPACE, control_pattern
from ift_jax.text.tokenizers.base import MOST_TOKENS, Tokenizer, template_file
from ift_jax.text.tokenizers.declared_tokens import DeclaredToken
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
        declared: Sequence[DeclaredToken] = (),
        add_bos: bool | None = None,
        added_tokens: Sequence[str] = (),
        chat_template: str = "",
    ):
        """Read the text of a `tokenizer.json`.

        Args:
            definition: The text of the file.
            names: Special tokens by role: `eos_token` and, where they exist, `bos_token`,
                `pad_token`, `unk_token` and others.
            name: What error messages call the file.
            declared: Tokens that the files beside it declare.
            add_bos: Whether BOS comes before a text; None: as the file says.
            added_tokens: Tokens that become special, with new ids where the vocabulary lacks them.
            chat_template: The Jinja source that came with the tokenizer.

        Raises:
            UserError: The text is no tokenizer, names no EOS, a named token is not in the
                vocabulary, or a declared one has another id in it.
        """
        control = {*names.values(), *added_tokens}
        control |= {token.content for token in declared if token.special}
        inner = _parse(definition, control, name)
        _check_ids(inner, name)
        _add_declared(inner, [token.among(control) for token in declared], name)
        ids = inner.get_vocab(with_added_tokens=True)
        _check_names(names, ids, name)
        self.base_vocab_size = max(ids.values()) + 1
        pad = _choose_pad(ids, names, _special_strings(inner))
        self.special_tokens_map = {role: token for role, token in names.items() if token in ids}
        self.special_tokens_map["pad_token"] = pad
        _add_special_tokens(inner, added_tokens if pad in ids else (*added_tokens, pad))
        self._read_vocabulary(inner, names, pad, name)
        self._set_bos(inner, add_bos)
        definition = inner.to_str()
        self._make_encoders(inner, definition)
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

    def _set_bos(self, inner: tokenizers.Tokenizer, add_bos: bool | None) -> None:
        """Set whether BOS comes before a text, as the config beside the file says, or the file."""
        bos = self.special_tokens_map.get("bos_token")
        if add_bos is not None:
            start = [(bos, self.bos_id)] if add_bos and bos is not None else []
            front = f"{bos} " if start else ""
            inner.post_processor = processors.TemplateProcessing(
                single=f"{front}$A", pair=f"{front}$A {front}$B", special_tokens=start
            )
        whole = inner.encode("a", add_special_tokens=True).ids
        self.adds_bos = self.bos_id is not None and whole[:1] == [self.bos_id]

    def _make_encoders(self, inner: tokenizers.Tokenizer, definition: str) -> None:
        """Set an encoder for text with control strings, and one for each position of plain text."""
        fields = parse_json(definition, "tokenizer.json")
        self._with_controls = tokenizers.Tokenizer.from_str(definition)
        self._plain = _spelling_out(definition)
        self._middle = _spelling_out(json.dumps(_without_prefix(fields)))
        added = inner.get_added_tokens_decoder().values()
        # An ordinary added token begins a text anew, wherever it stands.
        beginners = [t.content for t in added if not t.special and not t.normalized]
        self._beginners = control_pattern(beginners)
        self._cache: PretokenCache | None = None
        # T5's tokenizer sees nothing but words, so a text is the same everywhere.
        if self.encode("a\nb", "text") == self.encode("a b", "text"):
            self._middle = self._plain
        self._continued_after = self._controls_that_continue(added)
        if cuts_at_spaces(fields):  # Such a tokenizer gives the same ids at every position.
            self._cache = PretokenCache(fields, self._encode_whole, self._plain.model)

    def _controls_that_continue(self, added: Iterable[tokenizers.AddedToken]) -> frozenset[str]:
        """Return the control tokens after which a text is encoded as in the middle of one.

        One control token of each kind is tried; they differ by their flags alone.
        """
        continues: dict[tuple[bool, ...], bool] = {}
        found: list[str] = []
        for token in added:
            if not token.special:
                continue
            kind = (token.normalized, token.lstrip, token.rstrip, token.single_word)
            if kind not in continues:
                continues[kind] = self._continues_after(token)
            if continues[kind]:
                found.append(token.content)
        return frozenset(found)

    def _continues_after(self, token: tokenizers.AddedToken) -> bool:
        control = token.content
        n_control = len(self.encode_with_controls(control))
        for probe in _PROBES:
            after = self.encode_with_controls(control + probe)[n_control:]
            if after != self.encode(probe.lstrip(WHITE_SPACE) if token.rstrip else probe):
                return True
        return False

    def place_after(self, control: str) -> str:
        return "text" if control in self._continued_after else "control"

    def encode(self, text: str, place: str = "start") -> list[int]:
        return self._cache.encode(text) if self._cache else self._encode_whole(text, place)

    def _encode_whole(self, text: str, place: str = "start") -> list[int]:
        """Encode without the cache."""
        if place != "text" or self._middle is self._plain:
            return self._plain.encode(text, add_special_tokens=False).ids
        found = self._beginners.search(text) if self._beginners else None
        if found is None:
            return self._middle.encode(text, add_special_tokens=False).ids
        before = self._middle.encode(text[: found.start()], add_special_tokens=False).ids
        return before + self._plain.encode(text[found.start() :], add_special_tokens=False).ids

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
        for token in fields.get("added_tokens", ()):  # `tokenizers` takes a file without them.
            if token["special"] is False and token["content"] in special:
                token["special"] = True
        inner = tokenizers.Tokenizer.from_str(json.dumps(fields))
    except Exception as error:  # `tokenizers` raises bare Exception.
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{name}: not a tokenizer.json ({reason})") from error
    # Truncation and padding that were left switched on would change what is encoded.
    inner.no_truncation()
    inner.no_padding()
    return inner


def _check_ids(inner: tokenizers.Tokenizer, name: str) -> None:
    """Refuse an id that no vocabulary reaches: `tokenizers` counts up to it for hours."""
    for token, i in inner.get_vocab(with_added_tokens=True).items():
        if i >= MOST_TOKENS:
            raise UserError(f"{name}: {token[:40]!r} has id {i}; expected less than {MOST_TOKENS}")


def _add_declared(
    inner: tokenizers.Tokenizer, declared: Sequence[DeclaredToken], name: str
) -> None:
    """Add the tokens that the files beside a `tokenizer.json` declare, as `transformers` does.

    Where the flags of a token differ, those with an id, which name them all, win.
    """
    listed = {token.content: token for token in inner.get_added_tokens_decoder().values()}
    new = []
    for token in declared:
        old = listed.get(token.content)
        # Only `added_tokens_decoder` states flags; the others name tokens.
        states_flags = token.id is not None and token.special is not None
        if old is None or (states_flags and not _same_flags(old, token)):
            new.append(token.as_added_token())
    inner.add_tokens(new)
    for token in declared:
        i = inner.token_to_id(token.content)
        if token.id is not None and i != token.id:
            raise UserError(
                f"{name}: the files beside it declare {token.content!r} as id {token.id}; here it"
                f" is {i}"
            )


def _same_flags(old: tokenizers.AddedToken, new: DeclaredToken) -> bool:
    flags = ("special", "lstrip", "rstrip", "normalized", "single_word")
    return all(getattr(old, flag) == getattr(new, flag) for flag in flags)


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
