"""Data that the benchmarks make for themselves, with fixed seeds."""

import json
from pathlib import Path

import numpy as np

from ift_jax.data.mixture import Mixture
from ift_jax.data.store import TokenStore, part_path
from ift_jax.preparation.store_writer import PartBuilder, finish_store
from ift_jax.text.encoded import Encoded

MAX_LENGTH = 2048  # Tokens of a row.
CONTROL_TOKENS = ("<|pad|>", "<|im_start|>", "<|im_end|>")
# ChatML with the marks by which TRL finds the assistant's tokens.
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|im_end|>"
    "{% endgeneration %}{% else %}{{ message['content'] }}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def log_normal(n: int, mean: float, most: int, seed: int) -> np.ndarray:
    """Draw n lengths with a long tail, clipped to 1 ... `most`; int64[n]."""
    sigma = 0.8
    drawn = np.random.default_rng(seed).lognormal(np.log(mean) - sigma**2 / 2, sigma, n)
    return np.clip(drawn, 1, most).astype(np.int64)


def token_mixture(folder: Path, n: int) -> Mixture:
    """Write a store of n examples of random ids, with log-normal lengths of mean 333."""
    rng = np.random.default_rng(0)
    partial = folder / "made.partial"
    partial.mkdir()
    part = PartBuilder()
    for i, length in enumerate(log_normal(n, 333, MAX_LENGTH, seed=0)):
        prompt_length = length // 3
        example = Encoded(
            tokens=rng.integers(1, 32_000, length).astype(np.int32),
            weights=(np.arange(length) >= prompt_length).astype(np.float32),
            encoder_tokens=np.zeros(0, np.int32),
            prompt_length=prompt_length,
            prefix_length=prompt_length,
            references=("",),
            truncated=0,
            control_strings=0,
        )
        part.add_record()
        part.add(example, i)
    part.write(part_path(partial, 0))
    finish_store(partial, folder / "made", {"shards": 1, "variants": 1, "split": "train"})
    store = TokenStore.open(folder / "made")
    return Mixture(["made"], np.ones(1), [store], [[]])


def made_words(rng: np.random.Generator, n: int) -> list[str]:
    """Make n words of two to eight letters."""
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    return ["".join(rng.choice(letters, length)) for length in rng.integers(2, 9, n)]


def conversations(folder: Path, n: int) -> Path:
    """Write JSON lines of n conversations of one or two turns, about 350 tokens each.

    Words are as frequent as in text, by Zipf's law over 50,000 words, and one of eight carries a
    punctuation mark: a tokenizer that remembers words must not look better than it is.
    """
    rng = np.random.default_rng(5)
    words = made_words(rng, 50_000)
    cumulative = np.cumsum(1 / (np.arange(len(words)) + 3))
    lengths = log_normal(n, 180, 800, seed=4) + 4
    drawn = np.searchsorted(cumulative, rng.random(lengths.sum()) * cumulative[-1])
    marks = np.array([",", ".", "?", ":"] + [""] * 28)[rng.integers(0, 32, len(drawn))]
    text = [words[i] + mark for i, mark in zip(drawn, marks.tolist(), strict=True)]
    path = folder / "made.jsonl"
    with open(path, "w") as file:
        for end, length in zip(np.cumsum(lengths), lengths, strict=True):
            messages = _messages(text[end - length : end])
            file.write(json.dumps({"messages": messages}) + "\n")
    return path


def _messages(words: list[str]) -> list[dict[str, str]]:
    """Cut a text into the messages of one turn, or of two if it is long."""
    parts = np.array_split(np.arange(len(words)), 2 if len(words) < 150 else 4)
    return [
        {"role": ("user", "assistant")[i % 2], "content": " ".join(words[j] for j in part)}
        for i, part in enumerate(parts)
    ]


def tokenizer_folder(folder: Path, data: Path, kind: str, vocab_size: int = 4096) -> Path:
    """Train a tokenizer; return a Hugging Face folder with it and the template.

    Args:
        folder: Where to make the folder.
        data: The JSON lines of conversations, of which the first 1,000 are used.
        kind: "bpe" is byte-level; "sentencepiece" has `tokenizer.model` and a `tokenizer.json` that
            is made of it.
        vocab_size: Its pieces.
    """
    lines = data.read_text().splitlines()[:1000]
    texts = [message["content"] for line in lines for message in json.loads(line)["messages"]]
    target = folder / "tokenizer"
    target.mkdir()
    if kind == "sentencepiece":
        _train_sentencepiece(texts, target, vocab_size)
    else:
        _train_bpe(texts, target, vocab_size)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|pad|>",
        "chat_template": CHATML,
    }
    (target / "tokenizer_config.json").write_text(json.dumps(config))
    return target


def _train_sentencepiece(texts: list[str], target: Path, vocab_size: int) -> None:
    from ift_jax.interop.sentencepiece_json import to_tokenizer_json
    from ift_jax.text.tokenizers.sentencepiece import SentencePieceTokenizer
    from ift_jax.text.tokenizers.train_sentencepiece import train_sentencepiece

    model = train_sentencepiece(iter(texts), vocab_size=vocab_size, control=CONTROL_TOKENS)
    (target / "tokenizer.model").write_bytes(model)
    tokenizer = SentencePieceTokenizer(model)
    (target / "tokenizer.json").write_text(to_tokenizer_json(tokenizer))


def _train_bpe(texts: list[str], target: Path, vocab_size: int) -> None:
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(CONTROL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(target / "tokenizer.json"))
