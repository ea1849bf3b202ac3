"""A cache of words and their ids, for SentencePiece models that merge pairs of pieces (BPE).

SentencePiece encodes every text anew. A merge depends on the two pieces alone, so where no piece of
the vocabulary reaches across a place, such as the one before a space, the ids of a text are those
of the parts before and behind it. A unigram model is another matter: it compares sums of float32
scores from the beginning of a text, whose rounding decides between pieces that are nearly as good.
"""

import re
from collections.abc import Callable, Mapping

import sentencepiece

from ift_jax.text.tokenizers.pretoken_cache import PRETOKEN, PUNCTUATION, IdsByPretoken

Encode = Callable[[str], list[int]]

_BPE = 2  # TrainerSpec.model_type of SentencePiece's schema.
_NEVER_MERGED = (2, 3, 6)  # ModelProto.SentencePiece.type: unknown, control, byte.
SPACE_MARK = "\u2581"  # How SentencePiece writes a space; rare in text.
_BEFORE_SPACE = re.compile(rf"[!-~]{SPACE_MARK}")
_BEFORE_PUNCTUATION = re.compile(rf"[A-Za-z0-9]{PUNCTUATION}")
_WORD = re.compile(r" ?[!-~]++(?= [!-~]|\Z)|.+?(?:(?<=[!-~])(?= [!-~])|\Z)", re.DOTALL)


def cached_encoders(
    model: bytes, processors: Mapping[str, sentencepiece.SentencePieceProcessor]
) -> dict[str, Encode]:
    """Return what encodes a text at each place: with a cache if the ids are known to be the same.

    Args:
        model: The bytes of the `.model` file.
        processors: Encode a text at each place; "text" is the middle of one.
    """
    words = _words(model)
    if words is None:
        return {place: processor.encode for place, processor in processors.items()}
    middle = processors["text"]
    ids = IdsByPretoken(middle.encode)
    encoders: dict[str, Encode] = {}
    for place, processor in processors.items():
        first = ids if processor is middle else IdsByPretoken(processor.encode)
        encoders[place] = _encoder(words, first, ids)
    return encoders


def _encoder(words: re.Pattern[str], first_ids: IdsByPretoken, ids: IdsByPretoken) -> Encode:
    """Return what encodes a text, of which the first word stands at another place."""

    def encode(text: str) -> list[int]:
        found = words.findall(text)
        if first_ids is ids:
            return ids.join(found)
        return first_ids.join(found[:1]) + ids.join(found[1:])

    return encode


def _words(model: bytes) -> re.Pattern[str] | None:
    """Return what finds the words that can be encoded on their own; None if none can."""
    # Protocol buffers are slow to load.
    from sentencepiece import sentencepiece_model_pb2 as schema

    proto = schema.ModelProto.FromString(model)  # type: ignore[attr-defined]
    normalizer = proto.normalizer_spec
    changes_text = normalizer.precompiled_charsmap or normalizer.remove_extra_whitespaces
    if proto.trainer_spec.model_type != _BPE or changes_text or not normalizer.escape_whitespaces:
        return None
    if proto.trainer_spec.treat_whitespace_as_suffix or not proto.trainer_spec.byte_fallback:
        return None  # Without bytes, unknown characters on both sides of a place are one id.
    pieces = [piece.piece for piece in proto.pieces if piece.type not in _NEVER_MERGED]
    if any(map(_BEFORE_SPACE.search, pieces)):
        return None
    return _WORD if any(map(_BEFORE_PUNCTUATION.search, pieces)) else PRETOKEN
