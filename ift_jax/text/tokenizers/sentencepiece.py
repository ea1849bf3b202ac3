"""SentencePiece models."""

import hashlib
import itertools
import json
from collections.abc import Sequence

import sentencepiece

from ift_jax.errors import UserError
from ift_jax.text.control_strings import control_pattern
from ift_jax.text.tokenizers.base import Tokenizer, template_file

SPACE_MARK = "\u2581"  # How SentencePiece writes a space; rare in text.
_SPACE_MARK_PIECES = [f"<0x{byte:02X}>" for byte in SPACE_MARK.encode()]
# A serialized ModelProto that holds only normalizer_spec.add_dummy_prefix = false. Appended to a
# model's bytes it is merged with them, as protocol buffers are.
_NO_PREFIX = b"\x1a\x02\x18\x00"


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece `.model`, with T5's sentinels after its pieces if they are asked for.

    Sentinels are `<extra_id_0>`, `<extra_id_1>`, ... down from the last id, as in T5 (Raffel
    et al. 2020). The unknown piece pads where a model has no padding piece.

    For a model that keeps white space and falls back to bytes, such as one that
    `train_sentencepiece` made, `decode(encode(text)) == text` holds for every text. SentencePiece
    would read U+2581 in a text as a space, so that character is encoded as its bytes.

    Attributes:
        extra_ids: The number of sentinels.
    """

    def __init__(
        self,
        model: bytes,
        extra_ids: int = 0,
        name: str = "SentencePiece model",
        *,
        added_tokens: Sequence[str] = (),
        chat_template: str = "",
    ):
        """Read the bytes of a `.model` file.

        Args:
            model: The bytes.
            extra_ids: The number of T5's sentinels to add.
            name: What error messages call the file.
            added_tokens: Tokens that become special, with new ids after all others where the model
                lacks them.
            chat_template: The Jinja source that came with the tokenizer.

        Raises:
            UserError: The bytes are no model, or a model without an EOS or a usable padding id.
        """
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise UserError(f"{name}: not a SentencePiece model") from error
        self.extra_ids = extra_ids
        self._set_ids(name)
        special = self._control_pieces() | self._sentinels()
        added = [token for token in dict.fromkeys(added_tokens) if token not in special]
        for token in added:
            special[token] = self._id_of_added_token(token)
        self.special_tokens = special
        self._special_strings = {i: string for string, i in self.special_tokens.items()}
        self._special_strings.setdefault(self.pad_id, self._processor.id_to_piece(self.pad_id))
        self._controls = control_pattern(self.special_tokens)
        self._space_mark_ids = self._ids_of_the_space_mark()
        self._middle = self._processor_for_the_middle_of_a_text(model)
        self.strips = {}
        self.chat_template = chat_template
        self.files = {"tokenizer.model": model}
        if added:
            new_ids = {token: self.special_tokens[token] for token in added}
            self.files["added_tokens.json"] = json.dumps(new_ids).encode()
        self.files |= template_file(chat_template)
        options = f"extra_ids={extra_ids}{added if added else ''}".encode()
        self.fingerprint = hashlib.sha256(model + b"\0" + options).hexdigest()

    def _set_ids(self, name: str) -> None:
        """Set the ids that the model names; raise UserError if one that is needed is missing."""
        processor = self._processor
        self._n_pieces = processor.vocab_size()
        self.base_vocab_size = self._n_pieces + self.extra_ids
        self.vocab_size = self.base_vocab_size
        self.eos_id = processor.eos_id()
        if self.eos_id < 0:
            raise UserError(f"{name}: has no EOS piece; expected a model with one, such as T5's")
        self.bos_id = processor.bos_id() if processor.bos_id() >= 0 else None
        self.pad_id = processor.pad_id() if processor.pad_id() >= 0 else processor.unk_id()
        if self.pad_id == self.eos_id:
            raise UserError(f"{name}: pads with EOS; expected a padding id of its own")

        named_ids = {
            "eos_token": self.eos_id,
            "bos_token": self.bos_id,
            "pad_token": self.pad_id,
            "unk_token": processor.unk_id(),
        }
        self.special_tokens_map = {
            role: processor.id_to_piece(i) for role, i in named_ids.items() if i is not None
        }

    def _control_pieces(self) -> dict[str, int]:
        """Return the control pieces of the model and their ids."""
        controls = filter(self._processor.is_control, range(self._n_pieces))
        return {self._processor.id_to_piece(i): i for i in controls}

    def _sentinels(self) -> dict[str, int]:
        """Return T5's sentinels and their ids."""
        last = self.base_vocab_size - 1
        return {f"<extra_id_{k}>": last - k for k in range(self.extra_ids)}

    def _id_of_added_token(self, token: str) -> int:
        """Return the id of a token that becomes special: that of its piece, or a new one."""
        i = self._processor.piece_to_id(token)
        if i != self._processor.unk_id():
            return i
        self.vocab_size += 1
        return self.vocab_size - 1

    def _ids_of_the_space_mark(self) -> list[int]:
        """Return the ids of the bytes of U+2581; empty for a model whose round trip is inexact."""
        probe = "  a\n b "
        is_exact = self._processor.decode(self._processor.encode(probe)) == probe
        ids = [self._processor.piece_to_id(piece) for piece in _SPACE_MARK_PIECES]
        return ids if is_exact and all(map(self._processor.is_byte, ids)) else []

    def _processor_for_the_middle_of_a_text(
        self, model: bytes
    ) -> sentencepiece.SentencePieceProcessor:
        """Return a processor that puts no space in front of a text."""
        # To a model that sees white space only between words, every position is the same.
        if self._processor.encode("a\nb") == self._processor.encode("a b"):
            return self._processor
        middle = sentencepiece.SentencePieceProcessor()
        middle.LoadFromSerializedProto(model + _NO_PREFIX)
        return middle

    def encode(self, text: str, place: str = "start") -> list[int]:
        encode = (self._middle if place == "text" else self._processor).encode
        if self._space_mark_ids and SPACE_MARK in text:
            first, *rest = text.split(SPACE_MARK)
            ids = encode(first)
            for part in rest:
                ids += self._space_mark_ids + self._middle.encode(part)
            return ids
        return encode(text)

    def encode_with_controls(self, text: str) -> list[int]:
        parts = self._controls.split(text) if self._controls else [text]
        ids: list[int] = []
        for i, part in enumerate(parts):
            is_control = i % 2 == 1
            ids += [self.special_tokens[part]] if is_control else self.encode(part)
        return ids

    def decode(self, ids: Sequence[int], *, keep_special: bool = False) -> str:
        special = self._special_strings
        if not keep_special:
            pieces = [i for i in map(int, ids) if 0 <= i < self._n_pieces and i not in special]
            return self._processor.decode(pieces)
        known = [i for i in map(int, ids) if 0 <= i < self.vocab_size]
        text = ""
        for is_special, run in itertools.groupby(known, key=special.__contains__):
            if is_special:
                text += "".join(special[i] for i in run)
            else:
                text += self._processor.decode(list(run))
        return text
