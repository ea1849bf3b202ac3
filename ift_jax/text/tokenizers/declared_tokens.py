"""What the small files beside a tokenizer declare: its special tokens, added tokens, and options.

`tokenizer_config.json` wins over `special_tokens_map.json`, and its `added_tokens_decoder` over
`added_tokens.json`, as in `transformers`.
"""

import dataclasses
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Self

import tokenizers

from ift_jax.errors import UserError
from ift_jax.io.json_reader import json_kind, read_json_object
from ift_jax.io.typed_fields import TEXT

_CONFIG, _MAP, _ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
_EXTRA = ("additional_special_tokens", "extra_special_tokens")  # The old name, and the new one.
# Roles whose tokens are never added: without one that is named, a tokenizer is refused, or pads
# otherwise.
_ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")
# Classes of SentencePiece tokenizers that put BOS in front of a text unless told otherwise.
_ADD_BOS = ("Llama", "CodeLlama", "Gemma")


class DeclaredToken(NamedTuple):
    """A token that a file beside the tokenizer declares.

    Attributes:
        content: Its text.
        id: Its id; None where only its text is given.
        special: Whether it is a control token; None where the file does not say. Then it is one
            unless the tokenizer itself lists it as an ordinary added token.
        lstrip: Whether it swallows the white space at its left.
        rstrip: Whether it swallows the white space at its right.
        normalized: Whether it is looked for after normalization.
        single_word: Whether it is found only as a whole word.
    """

    content: str
    id: int | None = None
    special: bool | None = True
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False
    single_word: bool = False

    def among(self, control: Collection[str]) -> Self:
        """Return the token, as a control token if its text is among those of control tokens."""
        is_named = self.content in control and self.special is not None
        return self._replace(special=True) if is_named else self

    def as_added_token(self) -> tokenizers.AddedToken:
        """Return the token as `tokenizers` has it."""
        return tokenizers.AddedToken(
            self.content,
            special=self.special is not False,
            lstrip=self.lstrip,
            rstrip=self.rstrip,
            normalized=self.normalized,
            single_word=self.single_word,
        )


@dataclasses.dataclass(frozen=True)
class Declared:
    """What the files beside a tokenizer declare.

    Attributes:
        names: Special tokens by role, such as `{"eos_token": "</s>"}`.
        tokens: Added tokens and further special ones, in the order of their ids; those without an
            id come last.
        add_bos: Whether a text gets a BOS in front; None where the files do not say.
        class_adds_bos: Whether the named class of tokenizer does so by default.
        legacy: Whether a SentencePiece model puts a space before the text after a control token.
        add_prefix_space: Whether a SentencePiece model puts a space before a text.
    """

    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tokens: tuple[DeclaredToken, ...] = ()
    add_bos: bool | None = None
    class_adds_bos: bool = False
    legacy: bool = True
    add_prefix_space: bool = True


NOTHING_DECLARED = Declared()


def read_declared(folder: str) -> Declared:
    """Read the files in a tokenizer's folder; each may be missing.

    Raises:
        UserError: A file is no JSON object, or a field that is read is not what it should be.
    """
    config = _read(folder, _CONFIG)
    by_role = _read(folder, _MAP)
    names: dict[str, str] = {}
    extra: dict[str, DeclaredToken] = {}
    for file, fields in ((_MAP, by_role), (_CONFIG, config)):
        where = os.path.join(folder, file)
        for token in _extra_tokens(fields, where):
            extra.setdefault(token.content, token)
        for role, value in fields.items():
            # Not `add_bos_token`, which is a switch.
            if role.endswith("_token") and isinstance(value, str | dict) and value:
                token = _token(value, f"{where}: {role}")
                names[role] = token.content
                if role not in _ROLES:  # Such as "image_token": `transformers` adds it.
                    extra.setdefault(token.content, token._replace(special=True))
    tokens = dict(extra)
    for token in _added_tokens(folder, config):
        is_extra = token.content in extra
        tokens[token.content] = token._replace(special=True) if is_extra else token
    where = os.path.join(folder, _CONFIG)
    return Declared(
        names=names,
        tokens=tuple(sorted(tokens.values(), key=_by_id)),
        add_bos=_switch(config, "add_bos_token", where),
        class_adds_bos=str(config.get("tokenizer_class", "")).startswith(_ADD_BOS),
        legacy=_switch(config, "legacy", where) is not False,
        add_prefix_space=_switch(config, "add_prefix_space", where) is not False,
    )


def _read(folder: str, name: str) -> dict[str, Any]:
    path = os.path.join(folder, name)
    return read_json_object(path) if os.path.exists(path) else {}


def _by_id(token: DeclaredToken) -> float:
    return float("inf") if token.id is None else token.id


def _switch(config: Mapping[str, Any], name: str, where: str) -> bool | None:
    value = config.get(name)
    if value is not None and not isinstance(value, bool):
        raise UserError(f"{where}: {name} is {value!r}; expected true or false")
    return value


def _extra_tokens(fields: Mapping[str, Any], where: str) -> Iterator[DeclaredToken]:
    """Yield the control tokens that have no role of their own, or one that the file made up."""
    for name in _EXTRA:
        value = fields.get(name) or []
        if not isinstance(value, list | dict):
            raise UserError(f"{where}: {name} is {json_kind(value)}; expected a list of tokens")
        values: Iterable[Any] = value.values() if isinstance(value, dict) else value
        for i, item in enumerate(values):
            yield _token(item, f"{where}: {name}[{i}]")._replace(special=True, id=None)


def _added_tokens(folder: str, config: Mapping[str, Any]) -> list[DeclaredToken]:
    by_id = config.get("added_tokens_decoder")
    if by_id is not None:
        where = f"{os.path.join(folder, _CONFIG)}: added_tokens_decoder"
        if not isinstance(by_id, dict):
            raise UserError(f"{where} is {json_kind(by_id)}; expected an object of tokens by id")
        return [_added_token(key, value, f"{where}[{key!r}]") for key, value in by_id.items()]
    path = os.path.join(folder, _ADDED)
    ids = _read(folder, _ADDED)
    for content, i in ids.items():
        if type(i) is not int or i < 0:
            raise UserError(f"{path}: the id of {content!r} is {i!r}; expected a whole number")
    return [DeclaredToken(content, i, special=None) for content, i in ids.items()]


def _added_token(key: str, value: Any, where: str) -> DeclaredToken:
    if not key.isdecimal():
        raise UserError(f"{where}: expected an id")
    return _token(value, where)._replace(id=int(key))


def _token(value: Any, where: str) -> DeclaredToken:
    """Return a token that is given as its text, or as the fields of an `AddedToken`."""
    if value and TEXT.accepts(value):
        return DeclaredToken(value)
    if not isinstance(value, dict) or not TEXT.accepts(value.get("content")):
        raise UserError(f"{where} is {json_kind(value)}; expected a token")
    special = value.get("special", False)
    flags = {"normalized": not special} | {
        name: value[name] for name in DeclaredToken._fields[2:] if name in value
    }
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise UserError(f"{where}: {name} is {flag!r}; expected true or false")
    return DeclaredToken(value["content"], None, **({"special": special} | flags))
