"""The tokenizer of a run: a given one, or one that is trained on the text of the train mixture."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import seqio

from ift_jax.config.mixtures import mixture_and_split
from ift_jax.config.schema import Config
from ift_jax.errors import UserError
from ift_jax.io.files import Log, json_digest, write
from ift_jax.io.locks import build_lock
from ift_jax.io.paths import as_path
from ift_jax.preparation import fingerprints, read_examples, seqio_registry
from ift_jax.preparation.source_files import source_fingerprint
from ift_jax.text.chat_templates.registry import controls
from ift_jax.text.tokenizers.train_sentencepiece import VocabularyTooLarge, train_sentencepiece

_CHARACTERS = 20_000_000  # Text that a tokenizer is trained on, over all tasks.
_CHARACTERS_PER_EXAMPLE = 200  # A guess, by which examples are spread over a split.


def tokenizer_path(config: Config, modules_digest: str, log: Log) -> str:
    """Return the path of the given tokenizer, or of one trained on the train mixture.

    Args:
        config: The run's config.
        modules_digest: A hash of the modules that register the tasks.
        log: Called with a line when a tokenizer is trained.

    Raises:
        UserError: The config asks for neither, a task of the mixture is tokenized already, or the
            size is too small for the characters of its text.
    """
    if config.tokenizer.path:
        return config.tokenizer.path
    if not config.tokenizer.train_vocab_size:
        raise UserError(
            "tokenizer.path is empty and tokenizer.train_vocab_size is 0; expected the path of "
            "a tokenizer, or the size of one to train"
        )
    return str(_trained_tokenizer(config, modules_digest, log))


def _trained_tokenizer(config: Config, modules_digest: str, log: Log) -> Path:
    """Train a tokenizer, unless one of the same text and settings is in the store folder."""
    name, split, field = mixture_and_split(config, "train")
    tasks = seqio_registry.tasks_of(seqio_registry.resolve(name, field), split, field)
    size = config.tokenizer.train_vocab_size
    control = (*controls(config.format.template), *config.tokenizer.added_tokens)
    sources = [[task.name, source_fingerprint(task.source, split)] for task in tasks]
    key = [fingerprints.our_code(), modules_digest, size, control, sources, split, config.seed]
    key_hash = json_digest(key)[:12]
    store_dir = as_path(config.data.store_dir)
    path = store_dir / "tokenizers" / key_hash / "tokenizer.model"
    if _is_whole(path):
        return path  # Before the lock, which a folder that may only be read does not have.
    with build_lock(store_dir, f"tokenizer-{key_hash}", log):
        if not _is_whole(path):
            if path.exists():
                log(f"{path} is not known to have the bytes that were written: it is made again")
            log(f"training a tokenizer of {size} pieces on {name!r}")
            content = _train(tasks, split, config.seed, size, control, log)
            write(path, content)
            write(_sum_path(path), hashlib.sha256(content).hexdigest().encode())
    return path


def _is_whole(path: Path) -> bool:
    """Whether a trained tokenizer is there, with the bytes that were written."""
    if not path.exists() or not _sum_path(path).exists():
        return False
    return hashlib.sha256(path.read_bytes()).hexdigest().encode() == _sum_path(path).read_bytes()


def _sum_path(path: Path) -> Path:
    """The file of a trained tokenizer's hash."""
    return path.with_suffix(".sha256")


def _train(
    tasks: Sequence[seqio.Task],
    split: str,
    seed: int,
    size: int,
    control: Sequence[str],
    log: Log,
) -> bytes:
    """Train a tokenizer, a smaller one if the text gives fewer pieces than were asked for."""
    try:
        texts = _sampled_texts(tasks, split, seed)
        return train_sentencepiece(texts, vocab_size=size, control=control)
    except VocabularyTooLarge as error:
        log(f"the text gives only {error.largest} pieces: the tokenizer has {error.largest}")
        texts = _sampled_texts(tasks, split, seed)
        return train_sentencepiece(texts, vocab_size=error.largest, control=control)


def _sampled_texts(tasks: Sequence[seqio.Task], split: str, seed: int) -> Iterator[str]:
    """Yield texts of evenly spread examples, about as many characters of each task."""
    budget = _CHARACTERS // len(tasks) + 1
    wanted_examples = budget // _CHARACTERS_PER_EXAMPLE + 1
    for task in tasks:
        if not read_examples.is_text_task(task):
            raise UserError(
                f"task {task.name!r} is tokenized already: no tokenizer can be trained on it; "
                "set tokenizer.path to its vocabulary"
            )
        count = task.num_input_examples(split) or 1
        stride = -(-count // wanted_examples)
        left = budget
        for record in read_examples.text_records(task, split, 0, stride, seed):
            for message in record.messages:
                yield message.content
                left -= len(message.content)
            if left < 0:
                break
