"""A SentencePiece model as a `tokenizer.json` that gives the same ids."""

from collections.abc import Mapping

import tokenizers
from tokenizers import decoders, models, normalizers, processors

from ift_jax.errors import UserError

_SPACE = "\u2581"
_UNIGRAM, _BPE = 1, 2  # Of TrainerSpec.model_type.
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)  # Of a piece.


def to_tokenizer_json(
    model: bytes, special_tokens: Mapping[str, int], eos: tuple[str, int] | None = None
) -> str:
    """The `tokenizer.json` of a SentencePiece model, unigram or BPE, with byte fallback or not.

    Its text is what stands between control tokens, each such part by itself (a model that puts
    a space before text puts one before each). One thing differs: a literal U+2581 in a text is a
    space to both, where `SentencePieceTokenizer` spells it in bytes. Control strings with ids
    beyond the model's pieces are added; `eos` (its string and id) is appended where special tokens
    are asked for (T5's encoder).

    Raises:
        UserError: a kind of model that `tokenizers` has not, or ids with a gap.
    """
    from sentencepiece import sentencepiece_model_pb2 as schema

    proto = schema.ModelProto.FromString(model)  # type: ignore[attr-defined]
    pieces, normalized, kind = proto.pieces, proto.normalizer_spec, proto.trainer_spec.model_type
    if kind not in (_UNIGRAM, _BPE) or any(piece.type == _UNUSED for piece in pieces):
        raise UserError(
            "the SentencePiece model is neither unigram nor BPE, or has unused pieces: "
            "no tokenizer.json gives its ids"
        )
    unknown = next(i for i, piece in enumerate(pieces) if piece.type == _UNKNOWN)
    bytes_too = any(piece.type == _BYTE for piece in pieces)
    if kind == _UNIGRAM:
        scored = [(piece.piece, piece.score) for piece in pieces]
        result = tokenizers.Tokenizer(models.Unigram(scored, unknown, bytes_too))
    else:
        result = tokenizers.Tokenizer(
            models.BPE(
                vocab={piece.piece: i for i, piece in enumerate(pieces)},
                merges=_merges(pieces),
                unk_token=pieces[unknown].piece,
                fuse_unk=True,
                byte_fallback=bytes_too,
            )
        )
    steps: list[normalizers.Normalizer] = []
    if normalized.precompiled_charsmap:
        steps.append(normalizers.Precompiled(normalized.precompiled_charsmap))
    if normalized.remove_extra_whitespaces:  # Spaces only: a newline that is left stays.
        rules = ((" {2,}", " "), (r"\A +| +\z", ""))
        steps += [normalizers.Replace(tokenizers.Regex(rule), instead) for rule, instead in rules]
    if normalized.add_dummy_prefix:
        steps.append(normalizers.Prepend(_SPACE))
    steps.append(normalizers.Replace(" ", _SPACE))
    result.normalizer = normalizers.Sequence(steps)
    strip = [decoders.Strip(" ", 1, 0)] if normalized.add_dummy_prefix else []
    result.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    for piece in pieces:
        if piece.type == _USER_DEFINED:
            # Matched behind the normaliser, so that a piece of spaces is; not where that would
            # put a space before the piece itself.
            behind = not normalized.add_dummy_prefix
            result.add_tokens([tokenizers.AddedToken(piece.piece, normalized=behind)])
    for token, wanted in sorted(special_tokens.items(), key=lambda item: item[1]):
        result.add_special_tokens([tokenizers.AddedToken(token, special=True, normalized=False)])
        if result.token_to_id(token) != wanted:
            raise UserError(
                f"special token {token!r} has id {wanted}: no tokenizer.json can give "
                f"it one with a gap before it"
            )
    if eos is not None:
        result.post_processor = processors.TemplateProcessing(
            single=f"$A {eos[0]}", pair=f"$A {eos[0]} $B {eos[0]}", special_tokens=[eos]
        )
    return result.to_str()


def _merges(pieces: list) -> list[tuple[str, str]]:  # type: ignore[type-arg]
    """Every way to put a piece together from two others, the likeliest piece first."""
    ids = {piece.piece: i for i, piece in enumerate(pieces) if piece.type not in (_CONTROL, _BYTE)}
    merges = []
    normal = (piece for piece in pieces if piece.type == _NORMAL)
    for piece in sorted(normal, key=lambda piece: -piece.score):
        text = piece.piece
        pairs = [(text[:i], text[i:]) for i in range(1, len(text))]
        known = [pair for pair in pairs if pair[0] in ids and pair[1] in ids]
        merges += sorted(known, key=lambda pair: (ids[pair[0]], ids[pair[1]]))
    return merges
