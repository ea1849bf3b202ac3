"""Tokenizers in the styles of released chat models, with the control tokens of any template."""

import functools
import json

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers

from ift_jax.text.tokenizers.hugging_face import HuggingFaceTokenizer
from tests.text.small_tokenizers import TEXTS

NAMED = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
STYLES = ("byte_level", "llama_legacy", "llama_first", "metaspace_always")


@functools.cache
def definition(style: str, control: tuple[str, ...], added: tuple[str, ...] = ()) -> str:
    """Makes the text of a `tokenizer.json` with these control tokens, and with added ordinary ones.

    The style "byte_level" is GPT-2's. The others are BPE like SentencePiece's, with byte fallback.
    They put a space in front of a text: "llama_legacy" and "metaspace_always" also after a control
    token, "llama_first" only at the start.
    """
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    trained = tokenizers.Tokenizer(models.BPE())
    byte_level = style == "byte_level"
    alphabet = pre_tokenizers.ByteLevel.alphabet() if byte_level else []
    trained.pre_tokenizer = (
        pre_tokenizers.ByteLevel(add_prefix_space=False)
        if byte_level
        else pre_tokenizers.Metaspace()
    )
    # Training on lines keeps newlines out of pieces, as in Llama's tokenizers.
    trained.train_from_iterator(
        [line for text in TEXTS for line in text.split("\n")],
        trainers.BpeTrainer(
            vocab_size=500, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    model = json.loads(trained.to_str())["model"]
    vocab = dict(model["vocab"])
    if not byte_level:
        for byte in range(256):
            vocab[f"<0x{byte:02X}>"] = len(vocab)
        vocab.setdefault("\u2581", len(vocab))
    merges = [tuple(pair) for pair in model["merges"]]
    inner = tokenizers.Tokenizer(
        models.BPE(vocab, merges)
        if byte_level
        else models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    if byte_level:
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
    else:
        inner.decoder = decoders.Sequence(
            [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
    if style == "llama_legacy":
        inner.normalizer = normalizers.Sequence(
            [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        )
    elif style == "llama_first":
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    elif style == "metaspace_always":
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    inner.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in (*special, *control)]
    )
    inner.add_tokens([AddedToken(token, normalized=False) for token in added])
    return inner.to_str()


@functools.cache
def ours(
    style: str, control: tuple[str, ...], chat_template: str = "", added: tuple[str, ...] = ()
) -> HuggingFaceTokenizer:
    return HuggingFaceTokenizer(
        definition(style, control, added), NAMED, chat_template=chat_template
    )


@functools.cache
def theirs(style: str, control: tuple[str, ...], chat_template: str, added: tuple[str, ...] = ()):
    import transformers

    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(definition(style, control, added)),
        chat_template=chat_template,
        **NAMED,
    )
