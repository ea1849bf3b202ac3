"""A SentencePiece model as a `tokenizer.json` that gives the same ids."""

from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from ift_jax.errors import UserError
from ift_jax.text.tokenizers.sentencepiece import SentencePieceTokenizer
from ift_jax.text.tokenizers.sentencepiece_words import SPACE_MARK

# TrainerSpec.model_type of SentencePiece's schema.
_UNIGRAM, _BPE = 1, 2
# ModelProto.SentencePiece.type of the same.
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)


def to_tokenizer_json(tokenizer: SentencePieceTokenizer, eos: tuple[str, int] | None = None) -> str:
    """Return the `tokenizer.json` of a SentencePiece model: unigram or BPE, with or without bytes.

    It encodes the parts of a text between control tokens separately, so a model that puts a space
    before a text puts one before each part. One thing differs: a literal U+2581 in a text is a
    space to SentencePiece and to the result, where `SentencePieceTokenizer` spells it in bytes.
    Without `legacy`, another thing does: a text that begins with a space gets no second one.

    Args:
        tokenizer: The tokenizer, whose added tokens are added.
        eos: A string and its id, appended wherever special tokens are asked for (T5's encoder).

    Raises:
        UserError: `tokenizers` has no such kind of model.
    """
    # Only an export needs the schema: no other start imports protocol buffers.
    from sentencepiece import sentencepiece_model_pb2 as schema

    proto = schema.ModelProto.FromString(tokenizer.files["tokenizer.model"])  # type: ignore[attr-defined]
    added = tokenizer.special_tokens | tokenizer.ordinary_tokens
    for token, i in added.items():
        if i < len(proto.pieces) and proto.pieces[i].piece != token:  # A reserved piece, renamed.
            proto.pieces[i].piece, proto.pieces[i].type = token, _CONTROL
    proto.normalizer_spec.add_dummy_prefix &= tokenizer.add_prefix_space
    result = tokenizers.Tokenizer(_model(proto))
    result.normalizer = _normalizer(proto.normalizer_spec, anew=tokenizer.legacy)
    if proto.normalizer_spec.add_dummy_prefix and not tokenizer.legacy:
        result.pre_tokenizer = pre_tokenizers.Metaspace(
            SPACE_MARK, prepend_scheme="first", split=False
        )
    result.decoder = _decoder(proto.normalizer_spec)
    for piece in proto.pieces:
        if piece.type == _USER_DEFINED:
            # Matched in normalized text, where a piece of spaces is found. A model with a dummy
            # prefix would put a space before the piece itself, so there it is matched in the text.
            normalized = not proto.normalizer_spec.add_dummy_prefix
            result.add_tokens([tokenizers.AddedToken(piece.piece, normalized=normalized)])
    _add_tokens(result, added, tokenizer)
    if eos is not None:
        result.post_processor = processors.TemplateProcessing(
            single=f"$A {eos[0]}", pair=f"$A {eos[0]} $B {eos[0]}", special_tokens=[eos]
        )
    return result.to_str()


def _model(proto: Any) -> models.Model:
    """Return the unigram or BPE model."""
    pieces = proto.pieces
    kind = proto.trainer_spec.model_type
    if kind not in (_UNIGRAM, _BPE) or any(piece.type == _UNUSED for piece in pieces):
        raise UserError(
            "the SentencePiece model is neither unigram nor BPE, or has unused pieces: "
            "no tokenizer.json gives its ids"
        )
    unknown = next(i for i, piece in enumerate(pieces) if piece.type == _UNKNOWN)
    byte_fallback = any(piece.type == _BYTE for piece in pieces)
    if kind == _UNIGRAM:
        scored = [(piece.piece, piece.score) for piece in pieces]
        return models.Unigram(scored, unknown, byte_fallback)
    return models.BPE(
        vocab={piece.piece: i for i, piece in enumerate(pieces)},
        merges=_merges(pieces),
        unk_token=pieces[unknown].piece,
        fuse_unk=True,
        byte_fallback=byte_fallback,
    )


def _merges(pieces: Sequence[Any]) -> list[tuple[str, str]]:
    """Return every way to join two pieces into a third, the likeliest results first."""
    ids = {piece.piece: i for i, piece in enumerate(pieces) if piece.type not in (_CONTROL, _BYTE)}

    def ids_of(pair: tuple[str, str]) -> tuple[int, int]:
        return ids[pair[0]], ids[pair[1]]

    normal = [piece for piece in pieces if piece.type == _NORMAL]
    merges: list[tuple[str, str]] = []
    for piece in sorted(normal, key=lambda piece: -piece.score):
        text = piece.piece
        pairs = [(text[:i], text[i:]) for i in range(1, len(text))]
        known = [pair for pair in pairs if pair[0] in ids and pair[1] in ids]
        merges += sorted(known, key=ids_of)
    return merges


def _normalizer(spec: Any, *, anew: bool) -> normalizers.Normalizer:
    """Return the normalizer; `anew`: it puts a space before each text between control tokens."""
    steps: list[normalizers.Normalizer] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        # Only spaces: a newline that the map above has left stays.
        steps.append(normalizers.Replace(tokenizers.Regex(" {2,}"), " "))
        steps.append(normalizers.Replace(tokenizers.Regex(r"\A +| +\z"), ""))
    if spec.add_dummy_prefix and anew:
        steps.append(normalizers.Prepend(SPACE_MARK))
    steps.append(normalizers.Replace(" ", SPACE_MARK))
    return normalizers.Sequence(steps)


def _decoder(spec: Any) -> decoders.Decoder:
    steps = [decoders.Replace(SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    if spec.add_dummy_prefix:
        steps.append(decoders.Strip(" ", 1, 0))
    return decoders.Sequence(steps)


def _add_tokens(
    result: tokenizers.Tokenizer, ids: Mapping[str, int], tokenizer: SentencePieceTokenizer
) -> None:
    """Add the control tokens and the ordinary added tokens in the order of their ids."""
    for token in sorted(ids, key=ids.__getitem__):
        special = token in tokenizer.special_tokens
        lstrip, rstrip = tokenizer.strips.get(token, (False, False))
        added = tokenizers.AddedToken(
            token, special=special, normalized=False, lstrip=lstrip, rstrip=rstrip
        )
        result.add_tokens([added])
