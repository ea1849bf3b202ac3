"""SentencePiece models."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sentencepiece

from ift_jax.errors import UserError
from ift_jax.text.control_strings import control_pattern, strip_beside_controls
from ift_jax.text.tokenizers.base import Tokenizer, template_file
from ift_jax.text.tokenizers.declared_tokens import NOTHING_DECLARED, Declared, DeclaredToken
from ift_jax.text.tokenizers.sentencepiece_words import SPACE_MARK, Encode, cached_encoders

_SPACE_MARK_PIECES = [f"<0x{byte:02X}>" for byte in SPACE_MARK.encode()]
# A serialized ModelProto that holds only normalizer_spec.add_dummy_prefix = false. Appended to a
# model's bytes it is merged with them, as protocol buffers are.
_NO_PREFIX = b"\x1a\x02\x18\x00"
# Texts that are encoded one by one before a cache is made, which takes longer than a few texts do.
_TEXTS_BEFORE_CACHE = 500


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece `.model`, with T5's sentinels after its pieces if they are asked for.

    Sentinels are `<extra_id_0>`, `<extra_id_1>`, ... down from the last id, as in T5 (Raffel
    et al. 2020). The unknown piece pads where a model has no padding piece.

    For a model that keeps white space and falls back to bytes, such as one that
    `train_sentencepiece` made, `decode(encode(text)) == text` holds for every text. SentencePiece
    would read U+2581 in a text as a space, so that character is encoded as its bytes.

    Attributes:
        extra_ids: The number of sentinels.
        ordinary_tokens: Added tokens that are no control tokens, and their ids.
        legacy: Whether the text after a control token is encoded like one at the start.
        add_prefix_space: Whether a text at the start gets a space in front.
    """

    def __init__(
        self,
        model: bytes,
        extra_ids: int = 0,
        name: str = "SentencePiece model",
        *,
        declared: Declared = NOTHING_DECLARED,
        added_tokens: Sequence[str] = (),
        chat_template: str = "",
    ):
        """Read the bytes of a `.model` file.

        Args:
            model: The bytes.
            extra_ids: The number of T5's sentinels to add.
            name: What error messages call the file.
            declared: What the files beside it declare.
            added_tokens: Tokens that become special, with new ids after all others where the model
                lacks them.
            chat_template: The Jinja source that came with the tokenizer.

        Raises:
            UserError: The bytes are no model, a model without an EOS or a usable padding id, or a
                declared token cannot have its id.
        """
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
            self._n_pieces = self._processor.vocab_size()
            self._processor.id_to_piece(list(range(self._n_pieces)))
        except RuntimeError as error:
            raise UserError(f"{name}: not a SentencePiece model") from error
        except UnicodeDecodeError as error:
            raise UserError(f"{name}: a piece of the SentencePiece model is not UTF-8") from error
        self.extra_ids = extra_ids
        self.vocab_size = self._n_pieces + extra_ids
        self.special_tokens: dict[str, int] = self._control_pieces() | self._sentinels()
        self.ordinary_tokens: dict[str, int] = {}
        for token in declared.tokens:
            self._declare(token, name)
        self._set_ids(declared.names, name)
        self.base_vocab_size = self.vocab_size
        new = [DeclaredToken(content) for content in added_tokens]
        for token in new:
            self._declare(token, name)
        self.strips = _strips(declared.tokens)
        self.legacy = declared.legacy
        self.add_prefix_space = declared.add_prefix_space
        adds_bos = declared.class_adds_bos if declared.add_bos is None else declared.add_bos
        self.adds_bos = adds_bos and self.bos_id is not None
        self._set_patterns()
        self._set_processors(model)
        self._space_mark_ids = self._ids_of_the_space_mark()
        self.chat_template = chat_template
        config = self._config([*declared.tokens, *new], declared.names)
        self.files = {"tokenizer.model": model, **template_file(chat_template)}
        if config:
            self.files["tokenizer_config.json"] = json.dumps(config).encode()
        options = json.dumps([extra_ids, config]).encode()
        self.fingerprint = hashlib.sha256(model + b"\0" + options).hexdigest()

    def _control_pieces(self) -> dict[str, int]:
        """Return the control pieces of the model and their ids."""
        controls = filter(self._processor.is_control, range(self._n_pieces))
        return {self._processor.id_to_piece(i): i for i in controls}

    def _sentinels(self) -> dict[str, int]:
        """Return T5's sentinels and their ids."""
        last = self._n_pieces + self.extra_ids - 1
        return {f"<extra_id_{k}>": last - k for k in range(self.extra_ids)}

    def _declare(self, token: DeclaredToken, name: str) -> None:
        """Add a token with the id that it is declared with, else that of its piece or the next.

        Raises:
            UserError: The id leaves a gap, or the token or the id is taken.
        """
        content = token.content
        known = self._known_id(content)
        i = token.id
        if i is None:
            i = self.vocab_size if known is None else known
        # A new token may rename a piece, as those that a model reserves are renamed.
        is_new = known is None and (i < self._n_pieces or i == self.vocab_size)
        if known != i and not is_new:
            expected = self.vocab_size if known is None else known
            raise UserError(
                f"{name}: the files beside it declare {content!r} as id {i}; expected {expected}"
                f" with {self.extra_ids} extra ids"
            )
        self.vocab_size = max(self.vocab_size, i + 1)
        if token.special is not False or content in self.special_tokens:
            self.special_tokens[content] = i
        else:
            self.ordinary_tokens[content] = i

    def _known_id(self, token: str) -> int | None:
        """Return the id of a token that the vocabulary has."""
        for table in (self.special_tokens, self.ordinary_tokens):
            if token in table:
                return table[token]
        i = self._processor.piece_to_id(token)
        unknown = self._processor.unk_id()
        is_piece = i != unknown or token == self._processor.id_to_piece(unknown)
        return i if is_piece else None

    def _set_ids(self, names: Mapping[str, str], name: str) -> None:
        """Set the ids of the tokens that have a role: as declared, or else as the model says.

        Raises:
            UserError: There is no EOS, or nothing else to pad with.
        """
        processor = self._processor
        pad = processor.pad_id() if processor.pad_id() >= 0 else processor.unk_id()
        ids = {
            "eos_token": processor.eos_id(),
            "bos_token": processor.bos_id(),
            "pad_token": pad,
            "unk_token": processor.unk_id(),
        }
        strings = {role: processor.id_to_piece(i) for role, i in ids.items() if i >= 0}
        for role, content in names.items():
            if (i := self._known_id(content)) is None:
                continue
            self.special_tokens.setdefault(content, i)
            self.ordinary_tokens.pop(content, None)
            ids[role], strings[role] = i, content
        if ids["pad_token"] == ids["eos_token"]:  # Padding must be told from an ending.
            ids["pad_token"], strings["pad_token"] = pad, processor.id_to_piece(pad)
        if ids["eos_token"] < 0:
            raise UserError(f"{name}: has no EOS piece; expected a model with one, such as T5's")
        if ids["pad_token"] == ids["eos_token"]:
            raise UserError(f"{name}: pads with EOS; expected a padding id of its own")
        self.eos_id, self.pad_id = ids["eos_token"], ids["pad_token"]
        self.bos_id = ids["bos_token"] if ids["bos_token"] >= 0 else None
        self.special_tokens_map = strings

    def _set_patterns(self) -> None:
        """Set what finds the added tokens in a text, and what writes them."""
        self._controls = control_pattern(self.special_tokens)
        self._ordinary = control_pattern(self.ordinary_tokens)
        self._hidden_ids = {self.pad_id, *self.special_tokens.values()}
        self._strings = {self.pad_id: self._processor.id_to_piece(self.pad_id)}
        self._strings |= {i: string for string, i in self.special_tokens.items()}
        self._strings |= {i: string for string, i in self.ordinary_tokens.items()}

    def _set_processors(self, model: bytes) -> None:
        """Set the processor for each place of a text: with or without a space in front."""
        middle = self._processor
        # To a model that sees white space only between words, every position is the same.
        if self._processor.encode("a\nb") != self._processor.encode("a b"):
            middle = sentencepiece.SentencePieceProcessor()
            middle.LoadFromSerializedProto(model + _NO_PREFIX)
        start = self._processor if self.add_prefix_space else middle
        after_control = start if self.legacy else middle
        self._by_place = {"start": start, "control": after_control, "text": middle}
        self._encoders: Mapping[str, Encode] = {
            place: processor.encode for place, processor in self._by_place.items()
        }
        self._texts_until_cache = _TEXTS_BEFORE_CACHE

    def _ids_of_the_space_mark(self) -> list[int]:
        """Return the ids of the bytes of U+2581; empty for a model whose round trip is inexact."""
        probe = "  a\n b "
        is_exact = self._processor.decode(self._processor.encode(probe)) == probe
        ids = [self._processor.piece_to_id(piece) for piece in _SPACE_MARK_PIECES]
        return ids if is_exact and all(map(self._processor.is_byte, ids)) else []

    def _config(self, tokens: Iterable[DeclaredToken], names: Mapping[str, str]) -> dict[str, Any]:
        """Return the `tokenizer_config.json` that gives this tokenizer again; empty for none."""
        config: dict[str, Any] = {}
        sentinels = self._sentinels()
        by_id: dict[str, Any] = {}
        for token in tokens:
            if token.content not in sentinels:
                is_special = token.content in self.special_tokens
                table = self.special_tokens if is_special else self.ordinary_tokens
                fields = token._replace(special=is_special)._asdict()
                del fields["id"]
                by_id[str(table[token.content])] = fields
        if by_id:
            config["added_tokens_decoder"] = dict(sorted(by_id.items(), key=lambda x: int(x[0])))
        config |= {
            role: self.special_tokens_map[role]
            for role in sorted(names)
            if role in self.special_tokens_map
        }
        if not self.legacy:
            config["legacy"] = False
        if not self.add_prefix_space:
            config["add_prefix_space"] = False
        if self.adds_bos:
            config["add_bos_token"] = True
        return config

    def encode(self, text: str, place: str = "start") -> list[int]:
        if self._ordinary is None:
            return self._encode_pieces(text, place)
        ids: list[int] = []
        for i, part in enumerate(self._ordinary.split(text)):
            if i % 2:
                ids.append(self.ordinary_tokens[part])
                place = "control"
            elif part:
                ids += self._encode_pieces(part, place)
        return ids

    def _encode_pieces(self, text: str, place: str) -> list[int]:
        """Encode text without added tokens."""
        self._texts_until_cache -= 1
        if not self._texts_until_cache:
            self._encoders = cached_encoders(self.files["tokenizer.model"], self._by_place)
        encode = self._encoders[place]
        if self._space_mark_ids and SPACE_MARK in text:
            first, *rest = text.split(SPACE_MARK)
            ids = encode(first)
            for part in rest:
                ids += self._space_mark_ids + self._encoders["text"](part)
            return ids
        return encode(text)

    def encode_with_controls(self, text: str) -> list[int]:
        parts = self._controls.split(text) if self._controls else [text]
        if self.strips:
            parts = strip_beside_controls(parts, self.strips)
        ids: list[int] = []
        place = "start"
        for i, part in enumerate(parts):
            if i % 2:
                ids.append(self.special_tokens[part])
                place = "control"
            elif part:
                ids += self.encode(part, place)
        return ids

    def decode(self, ids: Sequence[int], *, keep_special: bool = False) -> str:
        hidden = () if keep_special else self._hidden_ids
        shown = [i for i in map(int, ids) if 0 <= i < self.vocab_size and i not in hidden]
        text = ""
        place = "start"
        for is_added, run in itertools.groupby(shown, key=self._strings.__contains__):
            if is_added:
                text += "".join(self._strings[i] for i in run)
                place = "control"
            else:
                text += self._by_place[place].decode(list(run))
        return text


def _strips(tokens: Iterable[DeclaredToken]) -> dict[str, tuple[bool, bool]]:
    return {
        token.content: (token.lstrip, token.rstrip)
        for token in tokens
        if token.special is not False and (token.lstrip or token.rstrip)
    }
