"""SentencePiece models."""

import hashlib
import itertools
import json
from collections.abc import Sequence

import sentencepiece

from ift_jax.errors import UserError
from ift_jax.text.tokenizers.base import Tokenizer, control_pattern

SPACE_MARK = "\u2581"  # How SentencePiece writes a space; itself rare in text.
# A serialised ModelProto with only normalizer_spec.add_dummy_prefix = false: put after a model's
# bytes it is merged with them, as protocol buffers are.
_NO_PREFIX = b"\x1a\x02\x18\x00"


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece `.model`, with T5's sentinels after its pieces if asked for.

    Sentinels are `<extra_id_0>`, `<extra_id_1>`, ... downwards from the last id, as in
    T5 (Raffel et al. 2020). Where a model has no padding piece its unknown piece pads.

    With a model that keeps whitespace and falls back to bytes (one that
    `train_sentencepiece` made), `decode(encode(text)) == text` for every text, U+2581
    included: SentencePiece would read that character as a space, so it is given as bytes.
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
        """Reads the bytes of a `.model` file.

        `extra_ids` is the number of T5's sentinels to add; `name` is what errors call it;
        `added_tokens` become special, with new ids after all others where it lacks them; the
        chat template came with it.

        Raises:
            UserError: not a model, or one without an EOS or a usable padding id.
        """
        self._processor = processor = sentencepiece.SentencePieceProcessor()
        try:
            processor.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise UserError(f"{name}: not a SentencePiece model") from error
        self._pieces = processor.vocab_size()
        self.extra_ids = extra_ids
        self.n_given = self.vocab_size = self._pieces + extra_ids
        self.eos_id = processor.eos_id()
        self.bos_id = processor.bos_id() if processor.bos_id() >= 0 else None
        if self.eos_id < 0:
            raise UserError(f"{name}: has no EOS piece; expected a model with one, such as T5's")
        self.pad_id = processor.pad_id() if processor.pad_id() >= 0 else processor.unk_id()
        if self.pad_id == self.eos_id:
            raise UserError(f"{name}: pads with EOS; expected a padding id of its own")
        self.special_tokens = {
            processor.id_to_piece(i): i for i in range(self._pieces) if processor.is_control(i)
        }
        self.special_tokens |= {
            f"<extra_id_{k}>": self.vocab_size - 1 - k for k in range(extra_ids)
        }
        added = [t for t in dict.fromkeys(added_tokens) if t not in self.special_tokens]
        unknown = processor.unk_id()
        for token in added:
            i = processor.piece_to_id(token)
            if i == unknown:
                i, self.vocab_size = self.vocab_size, self.vocab_size + 1
            self.special_tokens[token] = i
        self._special_strings = {i: piece for piece, i in self.special_tokens.items()}
        self._special_strings.setdefault(self.pad_id, processor.id_to_piece(self.pad_id))
        self._controls = control_pattern(self.special_tokens)
        probe, mark = "  a\n b ", [f"<0x{byte:02X}>" for byte in SPACE_MARK.encode()]
        mark_ids = [processor.piece_to_id(piece) for piece in mark]
        exact = processor.decode(processor.encode(probe)) == probe
        self._mark_ids = mark_ids if exact and all(map(processor.is_byte, mark_ids)) else []
        self._middle = sentencepiece.SentencePieceProcessor()
        self._middle.LoadFromSerializedProto(model + _NO_PREFIX)
        # A model that sees white space only between words is the same everywhere.
        if processor.encode("a\nb") == processor.encode("a b"):
            self._middle = processor
        named = {"eos": self.eos_id, "bos": self.bos_id, "pad": self.pad_id, "unk": unknown}
        self.names = {
            f"{key}_token": processor.id_to_piece(i) for key, i in named.items() if i is not None
        }
        self.strips = {}
        files = {"tokenizer.model": model}
        if added:
            ids = {token: self.special_tokens[token] for token in added}
            files["added_tokens.json"] = json.dumps(ids).encode()
        self._keep(chat_template, files)
        options = f"extra_ids={extra_ids}{added if added else ''}".encode()
        self.fingerprint = hashlib.sha256(model + b"\0" + options).hexdigest()

    def encode(self, text: str, place: str = "start") -> list[int]:
        encode = (self._middle if place == "text" else self._processor).encode
        if self._mark_ids and SPACE_MARK in text:
            first, *rest = text.split(SPACE_MARK)
            ids = encode(first)
            for part in rest:
                ids += self._mark_ids + self._middle.encode(part)
            return ids
        return encode(text)

    def encode_with_controls(self, text: str) -> list[int]:
        ids: list[int] = []
        for i, part in enumerate(self._controls.split(text) if self._controls else [text]):
            ids += [self.special_tokens[part]] if i % 2 else self.encode(part)
        return ids

    def decode(self, ids: Sequence[int], *, keep_special: bool = False) -> str:
        special = self._special_strings
        if not keep_special:
            return self._processor.decode(
                [i for i in map(int, ids) if 0 <= i < self._pieces and i not in special]
            )
        known = [i for i in map(int, ids) if 0 <= i < self.vocab_size]
        return "".join(
            "".join(special[i] for i in run) if is_special else self._processor.decode(list(run))
            for is_special, run in itertools.groupby(known, key=special.__contains__)
        )
